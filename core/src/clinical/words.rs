//! Words that people read, in the languages that Ebb speaks itself.

/// A text in English and in Spanish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Words {
    english: &'static str,
    spanish: &'static str,
}

impl Words {
    /// Puts both together.
    #[must_use]
    pub const fn new(english: &'static str, spanish: &'static str) -> Self {
        Self { english, spanish }
    }

    /// Returns the text in a language by its BCP 47 tag (`es`, `es-US`), or in English where there is none in it.
    #[must_use]
    pub fn get(&self, language: &str) -> &'static str {
        if is_spanish(language) { self.spanish } else { self.english }
    }
}

/// Says whether a BCP 47 tag asks for Spanish.
pub(super) fn is_spanish(language: &str) -> bool {
    language.split(['-', '_']).next().is_some_and(|primary| primary.eq_ignore_ascii_case("es"))
}
