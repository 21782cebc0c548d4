//! A deployment's keys and the list by which devices know them.
//!
//! Four Ed25519 keys: the *root* signs the list of pins and may afterwards live elsewhere, the *TLS* key
//! is what connections show, the *heads* key signs receipts, and the *next TLS* key is shown after the next
//! renewal. Each is a file of 64 hexadecimal digits, mode 0600, in the `keys` folder of the data directory;
//! beside them `pins`, the signed list as text.
//!
//! A device hears of a new list over a connection whose key it knows. So a TLS key stands in the list for
//! as long as the one before it is shown, and a renewal locks out only who was away since the last.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use ebb_protocol::{
    verify::{self, PublicKey},
    wire::{Pins, SignedPins},
};

use crate::signing::SigningKey;

/// What a running server needs of a deployment's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Shown by connections.
    pub tls: SigningKey,
    /// Signs heads and births of logs.
    pub heads: SigningKey,
    /// The list that devices hold.
    pub pins: SignedPins,
}

impl Keys {
    /// Makes the keys of a new deployment under a data directory, and the list of them.
    ///
    /// # Errors
    /// If there are keys already (they are never overwritten), or the files cannot be written.
    pub fn init(data: &Path) -> anyhow::Result<Self> {
        let folder = folder(data);
        ensure!(!folder.exists(), "{} exists: keys are never overwritten", folder.display());
        fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        // Made aside and moved into place: an interrupted init leaves no half of a deployment.
        let aside = data.join("keys.new");
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        let all = All {
            root: SigningKey::make(),
            tls: SigningKey::make(),
            next_tls: SigningKey::make(),
            heads: SigningKey::make(),
        };
        let keys = all.write(&aside, 1, Vec::new())?;
        fs::rename(&aside, &folder)?;
        sync_folder(data)?;
        Ok(keys)
    }

    /// Makes fresh keys in the place of those in use: the next TLS key is shown from now on and gets a
    /// successor, the heads key is replaced and stays in the list, and the root signs the list anew.
    ///
    /// # Errors
    /// If the root key is not in its place, the keys do not load, or the files cannot be written; whatever
    /// was there stays then.
    pub fn renew(data: &Path) -> anyhow::Result<Self> {
        let old = Self::load(data)?;
        let folder = folder(data);
        let root_path = folder.join("root");
        ensure!(
            root_path.exists(),
            "the root key signs the list of pins: put it back as {} (mode 600) for as long as this takes",
            root_path.display()
        );
        let content = old.pins.content().context("the list of pins is damaged")?;
        let root = read_key(&root_path)?;
        ensure!(root.public() == content.root, "{} is another deployment's key", root_path.display());
        let tls = read_key(&folder.join("tls.next"))?;
        ensure!(content.tls.contains(&tls.public()), "the next TLS key is not in the list of pins");
        let version = content.version.checked_add(1).context("the list's version cannot rise any more")?;
        let (aside, retired) = (data.join("keys.new"), data.join("keys.old"));
        for left_over in [&aside, &retired] {
            if left_over.exists() {
                fs::remove_dir_all(left_over)?;
            }
        }
        let all = All { root, tls, next_tls: SigningKey::make(), heads: SigningKey::make() };
        let keys = all.write(&aside, version, content.heads)?;
        // Between these two there are no keys: `load` finishes the second.
        fs::rename(&folder, &retired)?;
        fs::rename(&aside, &folder)?;
        sync_folder(data)?;
        fs::remove_dir_all(&retired).with_context(|| format!("cannot remove {}", retired.display()))?;
        Ok(keys)
    }

    /// Reads the keys of a deployment.
    ///
    /// # Errors
    /// If there are none, a file is damaged or open to others, or the list does not name the keys.
    pub fn load(data: &Path) -> anyhow::Result<Self> {
        let folder = folder(data);
        let (aside, retired) = (data.join("keys.new"), data.join("keys.old"));
        if !folder.exists() && retired.exists() && aside.exists() {
            // A renewal was interrupted, after the new keys were whole.
            fs::rename(&aside, &folder)?;
            sync_folder(data)?;
            fs::remove_dir_all(&retired)?;
        }
        ensure!(folder.exists(), "no keys in {}: run `ebb-sync-server init` first", folder.display());
        let tls = read_key(&folder.join("tls"))?;
        let heads = read_key(&folder.join("heads"))?;
        let text = fs::read_to_string(folder.join("pins")).context("cannot read the list of pins")?;
        let pins = SignedPins::from_text(&text).context("the list of pins is damaged")?;
        let content = pins.content().context("the list of pins is damaged")?;
        verify::check(pins.clone(), &content.root).context("the list of pins is not signed by its root")?;
        ensure!(content.tls.contains(&tls.public()), "the TLS key is not in the list of pins");
        ensure!(content.heads.contains(&heads.public()), "the heads key is not in the list of pins");
        Ok(Self { tls, heads, pins })
    }

    /// Keys whose signature under a head this server takes for its own, retired ones included.
    #[must_use]
    pub fn heads_keys(&self) -> Vec<PublicKey> {
        self.pins.content().map(|pins| pins.heads).unwrap_or_default()
    }

    /// The list as text, as apps are given it.
    #[must_use]
    pub fn pins_text(&self) -> String {
        self.pins.to_text()
    }
}

/// Everything that makes up a deployment.
struct All {
    root: SigningKey,
    tls: SigningKey,
    next_tls: SigningKey,
    heads: SigningKey,
}

impl All {
    /// Writes keys and list into a new folder, durably.
    fn write(self, folder: &Path, version: u32, retired_heads: Vec<PublicKey>) -> anyhow::Result<Keys> {
        let Self { root, tls, next_tls, heads } = self;
        make_private_folder(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, key) in [("root", &root), ("tls", &tls), ("tls.next", &next_tls), ("heads", &heads)] {
            write_private(&folder.join(name), &hex(key.seed()))?;
        }
        let pins = Pins {
            version,
            root: root.public(),
            tls: vec![tls.public(), next_tls.public()],
            heads: std::iter::once(heads.public()).chain(retired_heads).collect(),
        };
        let pins = SignedPins::sign(&pins, |message| root.sign(message));
        write_private(&folder.join("pins"), &pins.to_text())?;
        sync_folder(folder)?;
        Ok(Keys { tls, heads, pins })
    }
}

/// Makes durable which files a folder has.
fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn folder(data: &Path) -> PathBuf {
    data.join("keys")
}

fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::File::options();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    Ok(())
}

fn read_key(path: &Path) -> anyhow::Result<SigningKey> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode();
        ensure!(mode & 0o077 == 0, "{} is open to others: chmod 600 it", path.display());
    }
    match unhex(text.trim()) {
        Some(seed) => Ok(SigningKey::from_seed(&seed)),
        None => bail!("{} is damaged: 64 hexadecimal digits were expected", path.display()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_are_never_overwritten() {
        let data = tempfile::tempdir().expect("a folder");
        let made = Keys::init(data.path()).expect("fresh");
        let read = Keys::load(data.path()).expect("just made");
        assert_eq!(made.tls.public(), read.tls.public());
        assert_eq!(made.heads.public(), read.heads.public());
        assert_eq!(made.pins, read.pins);
        assert!(made.pins_text().starts_with("ebb1-"));
        assert!(Keys::init(data.path()).is_err());
    }

    #[test]
    fn renewed_keys_are_known_to_devices_of_the_list_before() {
        let data = tempfile::tempdir().expect("a folder");
        let first = Keys::init(data.path()).expect("fresh");
        let known = first.pins.content().expect("ours");
        let second = Keys::renew(data.path()).expect("the root is there");
        let pins = second.pins.content().expect("ours");
        assert!(verify::check(second.pins.clone(), &known.root).is_ok());
        assert_eq!((pins.root, pins.version), (known.root, 2));
        assert_ne!(second.tls.public(), first.tls.public());
        assert!(known.tls.contains(&second.tls.public()), "nobody is locked out");
        assert!(!pins.tls.contains(&first.tls.public()), "the old one is over");
        assert_eq!(pins.heads, [second.heads.public(), first.heads.public()], "old receipts still count");
        let read = Keys::load(data.path()).expect("just renewed");
        assert_eq!((read.tls.public(), &read.pins), (second.tls.public(), &second.pins));
        let third = Keys::renew(data.path()).expect("again");
        assert!(pins.tls.contains(&third.tls.public()));
        assert_eq!(third.heads_keys().len(), 3);
    }

    #[test]
    fn nothing_is_renewed_without_the_root_key() {
        let data = tempfile::tempdir().expect("a folder");
        let made = Keys::init(data.path()).expect("fresh");
        let root = data.path().join("keys/root");
        let away = data.path().join("root");
        fs::rename(&root, &away).expect("ours");
        let error = Keys::renew(data.path()).expect_err("no root").to_string();
        assert!(error.contains("keys/root"), "{error}");
        let other = tempfile::tempdir().expect("a folder");
        Keys::init(other.path()).expect("fresh");
        fs::copy(other.path().join("keys/root"), &root).expect("ours");
        assert!(Keys::renew(data.path()).is_err(), "another deployment's root");
        assert_eq!(Keys::load(data.path()).expect("as before").pins, made.pins);
    }

    #[test]
    fn an_interrupted_renewal_is_finished() {
        let data = tempfile::tempdir().expect("a folder");
        Keys::init(data.path()).expect("fresh");
        let (folder, aside) = (data.path().join("keys"), data.path().join("keys.new"));
        let renewed = Keys::renew(data.path()).expect("the root is there");
        fs::rename(&folder, &aside).expect("ours");
        fs::create_dir(data.path().join("keys.old")).expect("ours");
        assert_eq!(Keys::load(data.path()).expect("finished").pins, renewed.pins);
        assert!(folder.exists() && !aside.exists() && !data.path().join("keys.old").exists());
    }

    #[test]
    fn the_list_as_text_comes_back_and_nothing_else_does() {
        let data = tempfile::tempdir().expect("a folder");
        let keys = Keys::init(data.path()).expect("fresh");
        let text = keys.pins_text();
        assert_eq!(SignedPins::from_text(&format!(" {text}\n")), Ok(keys.pins));
        for wrong in ["", "ebb1-", "ebb1-zz", "ebb1-+1", &text[..text.len() - 1], &text[..text.len() - 2]] {
            assert!(SignedPins::from_text(wrong).is_err(), "{wrong}");
        }
        assert!(SignedPins::from_text(&format!("{text}00")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().expect("a folder");
        Keys::init(data.path()).expect("fresh");
        let heads = data.path().join("keys/heads");
        assert_eq!(fs::metadata(&heads).expect("made").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&heads, fs::Permissions::from_mode(0o644)).expect("ours");
        assert!(Keys::load(data.path()).is_err());
    }
}
