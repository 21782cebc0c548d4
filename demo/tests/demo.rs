//! The demo as people run it: its own binary, real processes, the verdict by its exit code.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebb-demo"));
    command.arg("--headless").args(arguments).output().expect("the demo starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The figures of the table's last line, by column: `phone`, `clinic`, `on server`, `far side`, `envelopes`.
fn totals(said: &str) -> [u64; 5] {
    let line = said.lines().find(|line| line.starts_with("all ")).expect("the table has a last line");
    let figures: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    figures[..5].try_into().expect("five counts")
}

#[test]
fn every_record_arrives_as_the_data_have_it() {
    let output = demo(&["--phones", "3", "--days", "30", "--seed", "7"]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let [phone, clinic, on_server, far_side, envelopes] = totals(&said);
    assert!(phone > 0 && clinic > 0 && envelopes > 0, "{said}");
    assert_eq!(phone + clinic, on_server, "{said}");
    assert_eq!(on_server, far_side, "{said}");
    assert!(said.contains(&format!("VERDICT: all {far_side} records are on the far side")), "{said}");
    // Scales with a total, alerts, and hours of those that are asked for.
    let care: Vec<_> =
        said.lines().find(|line| line.starts_with("all ")).expect("a last line").split(' ').collect();
    let care: Vec<_> = care.into_iter().filter(|word| !word.is_empty()).rev().take(4).collect();
    let (hours, required) = care[0].split_once('/').expect("hours of hours");
    assert!(hours.parse::<u32>().is_ok_and(|hours| hours > 0) && required != "0", "{said}");
    let figures: Vec<u32> = care[1..].iter().filter_map(|figure| figure.parse().ok()).collect();
    assert!(
        matches!(figures[..], [late, alerts, scored] if late <= alerts && alerts > 0 && scored > 0),
        "{said}"
    );
}

#[test]
fn one_changed_field_at_the_clinic_is_found() {
    let output = demo(&["--phones", "2", "--days", "20", "--tamper"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("0 missing, 0 extra, 1 differing, 0 lost"), "{said}");
    assert!(said.contains("amount is `"), "{said}");
}

#[test]
fn rows_of_other_tables_are_kept_however_dirty() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "everybody", "who,project\n7,27\n8,51\n");
    write(
        folder.path(),
        "randomization",
        "who,treatment,which,when\n7,Methadone,1,1\n8,Inpatient NR-NTX,1,1\n",
    );
    // The same dose twice, one below a later one, one without amount, one on half a day, an injection.
    write(
        folder.path(),
        "treatment",
        "who,amount,when\n7,30,1\n7,30,1\n7,50,4\n7,40,2\n7,,5\n7,20,5.5\n7,10.5,6\n8,1,3\n",
    );
    write(folder.path(), "withdrawal", "who,withdrawal,when\n7,2,1\n7,NA,2\n8,3,1\n8,9,2\n");
    write(folder.path(), "pain", "who,pain,when\n7,No Pain,0\n8,Severe Pain,0\n");
    write(
        folder.path(),
        "visit",
        "who,visit,what,is_no_show,is_in_jail,when\n7,WK2,visit,,,14\n7,WK1,no visit,1,1,\n7,WK1,MISSING,,,\n",
    );
    let data = folder.path().join("data");
    let trial = folder.path().to_str().expect("a plain path");
    let output = demo(&["--trial", trial, "--data", data.to_str().expect("a plain path")]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    // 12 and 5 of these are the tables'; the others the demo made up for two people with doses.
    assert_eq!(totals(&said)[..4], [12 + 32, 5 + 27, 17 + 59, 17 + 59], "{said}");
    assert!(said.contains("2 duplicate rows"), "{said}");
    assert!(said.contains("3 rows out of order"), "{said}");
    assert!(said.contains("3 without a value"), "{said}");
    assert!(data.join("phone-8/replica/ebb.db").exists(), "a folder that was asked for stays");
}

fn write(folder: &Path, table: &str, text: &str) {
    fs::write(folder.join(format!("{table}.csv")), text).expect("written");
}
