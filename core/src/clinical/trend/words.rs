//! Summaries in sentences: plain, without judgement, and silent where nobody told.

use super::{Adherence, Attended, Before, MeasureSummary, Summary};
use crate::clinical::{
    chart::Measure,
    substance::Medicine,
    words::{Words, is_spanish},
};

const fn words(english: &'static str, spanish: &'static str) -> Words {
    Words::new(english, spanish)
}

/// What people call measures; one of a programme's own instrument has its id.
const MEASURES: &[(&str, Words)] = &[
    ("mood", words("Mood", "Ánimo")),
    ("stress", words("Stress", "Estrés")),
    ("craving", words("Craving", "Ganas de consumir")),
    ("pain", words("Pain", "Dolor")),
    ("sleep_hours", words("Hours of sleep", "Horas de sueño")),
    ("pulse", words("Pulse", "Pulso")),
    ("systolic", words("Blood pressure, upper value", "Presión arterial, valor alto")),
    ("diastolic", words("Blood pressure, lower value", "Presión arterial, valor bajo")),
    ("temperature", words("Temperature in °C", "Temperatura en °C")),
    ("respiration", words("Breaths a minute", "Respiraciones por minuto")),
    ("oxygen_saturation", words("Oxygen in percent", "Oxígeno en porcentaje")),
    ("weight", words("Weight in kg", "Peso en kg")),
    ("sows16", words("Withdrawal as felt (SOWS)", "Abstinencia como se siente (SOWS)")),
    ("cows", words("Withdrawal as seen by the team (COWS)", "Abstinencia como la ve el equipo (COWS)")),
    ("ciwa_ar", words("Alcohol withdrawal (CIWA-Ar)", "Abstinencia de alcohol (CIWA-Ar)")),
    ("ciwa_b", words("Benzodiazepine withdrawal (CIWA-B)", "Abstinencia de benzodiacepinas (CIWA-B)")),
    ("phq9", words("Low mood (PHQ-9)", "Ánimo bajo (PHQ-9)")),
    ("phq2", words("Low mood (PHQ-2)", "Ánimo bajo (PHQ-2)")),
    ("phq2_i9.depression", words("Low mood (PHQ-2 and item 9)", "Ánimo bajo (PHQ-2 y pregunta 9)")),
    (
        "phq2_i9.suicide_ideation",
        words("Thoughts of death (PHQ-9, item 9)", "Pensamientos de muerte (PHQ-9, pregunta 9)"),
    ),
    ("gad7", words("Anxiety (GAD-7)", "Ansiedad (GAD-7)")),
    ("bam.use", words("Use (BAM)", "Consumo (BAM)")),
    ("bam.risk", words("Risks (BAM)", "Riesgos (BAM)")),
    ("bam.protective", words("What protects (BAM)", "Lo que protege (BAM)")),
    ("bam_iop.use", words("Use (BAM-IOP)", "Consumo (BAM-IOP)")),
    ("bam_iop.risk", words("Risks (BAM-IOP)", "Riesgos (BAM-IOP)")),
    ("bam_iop.protective", words("What protects (BAM-IOP)", "Lo que protege (BAM-IOP)")),
    ("bam_r.use", words("Use (BAM-R)", "Consumo (BAM-R)")),
    ("bam_r.risk", words("Risks (BAM-R)", "Riesgos (BAM-R)")),
    ("bam_r.protective", words("What protects (BAM-R)", "Lo que protege (BAM-R)")),
];

/// What people call medicines; any other has its own name.
const MEDICINES: &[(Medicine, Words)] = &[
    (Medicine::Buprenorphine, words("Buprenorphine", "Buprenorfina")),
    (Medicine::BuprenorphineDepot, words("Buprenorphine injection", "Buprenorfina inyectable")),
    (Medicine::Methadone, words("Methadone", "Metadona")),
    (Medicine::Naltrexone, words("Naltrexone", "Naltrexona")),
    (Medicine::NaltrexoneDepot, words("Naltrexone injection", "Naltrexona inyectable")),
    (Medicine::Naloxone, words("Naloxone", "Naloxona")),
];

/// Sentences in one of the two languages.
struct Voice<'a> {
    language: &'a str,
}

pub(super) fn sentences(summary: &Summary, language: &str) -> Vec<String> {
    let voice = Voice { language };
    let all = summary.days.count();
    let mut said = vec![voice.span(summary), voice.check_ins(summary.check_in_days, all)];
    said.extend(summary.measures.iter().map(|measure| voice.measure(measure, all)));
    said.extend(summary.doses.iter().map(|(medicine, told)| voice.doses(medicine, *told)));
    if summary.doses.is_empty() {
        said.push(voice.say("No doses recorded in these days.", "Sin dosis anotadas en estos días."));
    }
    said.push(voice.sessions(summary.sessions));
    said.push(voice.uses(summary.use_days, all));
    said
}

impl Voice<'_> {
    fn span(&self, summary: &Summary) -> String {
        let (first, last) = (summary.days.first(), summary.days.last());
        let days = self.days(summary.days.count());
        self.pick(format!("{first} to {last}, {days}."), format!("Del {first} al {last}, {days}."))
    }

    fn check_ins(&self, days: u32, all: u32) -> String {
        if days == 0 {
            return self.say("No check-ins in these days.", "Sin anotaciones de cómo va en estos días.");
        }
        self.pick(
            format!("Check-ins on {days} of {}.", self.days(all)),
            format!("Anotaciones de cómo va en {days} de {}.", self.days(all)),
        )
    }

    fn measure(&self, told: &MeasureSummary, all: u32) -> String {
        let name = measure_name(&told.measure, self.language);
        let rests = self.rests(told.readings, told.days);
        let (median, lowest, highest) = (figure(told.median), figure(told.lowest), figure(told.highest));
        let now = if told.readings == 1 {
            format!("{name}: {median} ({rests}).")
        } else {
            self.pick(
                format!("{name}: {median} in the middle, from {lowest} to {highest} ({rests})."),
                format!("{name}: {median} en el medio, de {lowest} a {highest} ({rests})."),
            )
        };
        let Some(Before { median, readings, days }) = told.before else { return now };
        let (median, rests, span) = (figure(median), self.rests(readings, days), self.days(all));
        self.pick(
            format!("{now} The {span} before: {median} ({rests})."),
            format!("{now} En {span} antes: {median} ({rests})."),
        )
    }

    fn doses(&self, medicine: &Medicine, told: Adherence) -> String {
        let parts = [
            (told.taken, words("taken on", "tomada en"), words("", "")),
            (told.not_taken, words("not taken on", "no tomada en"), words("", "")),
            (told.unknown, words("", ""), words("without a record", "sin registro")),
        ];
        let parts = parts.into_iter().filter(|(days, ..)| *days > 0).map(|(days, before, after)| {
            let (before, after) = (before.get(self.language), after.get(self.language));
            format!("{before} {} {after}", self.days(days)).trim().to_owned()
        });
        format!("{}: {}.", medicine_name(medicine, self.language), parts.collect::<Vec<_>>().join(", "))
    }

    fn sessions(&self, told: Attended) -> String {
        if told.sessions() == 0 {
            return self.say("No sessions recorded in these days.", "Sin sesiones anotadas en estos días.");
        }
        let Attended { kept, missed, unknown, minutes, of_unknown_length } = told;
        let mut parts = Vec::new();
        if kept > 0 {
            let mut length = Vec::new();
            if minutes > 0 {
                length.push(self.pick(format!("{minutes} minutes"), format!("{minutes} minutos")));
            }
            if of_unknown_length > 0 {
                length.push(self.pick(
                    format!("{of_unknown_length} of unknown length"),
                    format!("{of_unknown_length} sin duración anotada"),
                ));
            }
            let length = length.join(", ");
            parts.push(
                self.pick(format!("{kept} attended ({length})"), format!("{kept} con asistencia ({length})")),
            );
        }
        if missed > 0 {
            parts.push(self.pick(format!("{missed} not attended"), format!("{missed} sin asistencia")));
        }
        if unknown > 0 {
            parts.push(self.pick(format!("{unknown} not known"), format!("{unknown} sin saberse")));
        }
        self.pick(format!("Sessions: {}.", parts.join(", ")), format!("Sesiones: {}.", parts.join(", ")))
    }

    fn uses(&self, days: u32, all: u32) -> String {
        if days == 0 {
            return self.say(
                "No use recorded; what was not recorded is left open.",
                "Sin consumo anotado; lo que no se anotó queda abierto.",
            );
        }
        self.pick(
            format!("Use recorded on {days} of {}.", self.days(all)),
            format!("Consumo anotado en {days} de {}.", self.days(all)),
        )
    }

    fn rests(&self, readings: u32, days: u32) -> String {
        let on = self.days(days);
        match readings {
            1 => self.say("1 reading", "1 registro"),
            _ => self.pick(format!("{readings} readings on {on}"), format!("{readings} registros en {on}")),
        }
    }

    fn days(&self, count: u32) -> String {
        match count {
            1 => self.say("1 day", "1 día"),
            _ => self.pick(format!("{count} days"), format!("{count} días")),
        }
    }

    fn say(&self, english: &'static str, spanish: &'static str) -> String {
        words(english, spanish).get(self.language).to_owned()
    }

    fn pick(&self, english: String, spanish: String) -> String {
        if is_spanish(self.language) { spanish } else { english }
    }
}

pub(super) fn measure_name<'a>(measure: &'a Measure, language: &str) -> &'a str {
    let known = MEASURES.iter().find(|(name, _)| *name == measure.name());
    known.map_or(measure.name(), |(_, words)| words.get(language))
}

fn medicine_name<'a>(medicine: &'a Medicine, language: &str) -> &'a str {
    let known = MEDICINES.iter().find(|(known, _)| known == medicine);
    known.map_or(medicine.label(), |(_, words)| words.get(language))
}

/// A number with one decimal, where it has any.
fn figure(value: f64) -> String {
    let tenths = format!("{value:.1}");
    tenths.strip_suffix(".0").unwrap_or(&tenths).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinical::instrument::Instruments;

    #[test]
    fn every_shipped_scale_has_a_name() {
        for instrument in Instruments::shipped().iter() {
            for scale in &instrument.scales {
                let measure = Measure::of_scale(&instrument.id, &scale.id);
                assert_ne!(measure_name(&measure, "en"), measure.name());
                assert_ne!(measure_name(&measure, "es"), measure.name());
            }
        }
    }

    #[test]
    fn figures_have_a_decimal_where_they_need_one() {
        assert_eq!([3.0, 3.25, 36.64, -0.5].map(figure), ["3", "3.2", "36.6", "-0.5"]);
    }
}
