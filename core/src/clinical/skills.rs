//! What can be done against an urge: a small library of skills, there without a network.
//!
//! The ideas are those of the therapies that the families name; the words are Ebb's own, and no clinician has
//! approved them yet. A [`crate::record::Coping`] names a skill by its id.

use super::words::Words;

/// A skill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skill {
    /// Its id, which records carry and which never changes.
    pub id: &'static str,
    /// Where it comes from.
    pub family: Family,
    /// What it is called.
    pub title: Words,
    /// What to do, one thing after the other.
    pub steps: &'static [Words],
}

/// Names where a skill comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// Cognitive behavioural therapy.
    Cbt,
    /// Dialectical behaviour therapy.
    Dbt,
    /// Mindfulness.
    Mindfulness,
    /// Other people.
    Social,
}

/// Finds a skill by its id; `None` where a record holds own words instead.
///
/// ```
/// use ebb_core::clinical::skills;
///
/// let skill = skills::skill("urge_surfing").expect("one of the library");
/// assert_eq!(skill.title.get("es-MX"), "Surfear las ganas");
/// assert!(skills::skill("a walk with the dog").is_none());
/// ```
#[must_use]
pub fn skill(id: &str) -> Option<&'static Skill> {
    SKILLS.iter().find(|skill| skill.id == id)
}

const fn words(english: &'static str, spanish: &'static str) -> Words {
    Words::new(english, spanish)
}

/// Every skill, those that take the least first.
pub static SKILLS: &[Skill] = &[
    Skill {
        id: "breathing",
        family: Family::Mindfulness,
        title: words("Slow breathing", "Respirar despacio"),
        steps: &[
            words(
                "Sit or stand so that your belly has room.",
                "Siéntate o párate de modo que la barriga tenga espacio.",
            ),
            words(
                "Breathe in through the nose while you count to four.",
                "Toma aire por la nariz mientras cuentas hasta cuatro.",
            ),
            words(
                "Breathe out through the mouth while you count to six.",
                "Suelta el aire por la boca mientras cuentas hasta seis.",
            ),
            words(
                "Do this ten times, and notice what has changed.",
                "Hazlo diez veces y nota qué ha cambiado.",
            ),
        ],
    },
    Skill {
        id: "grounding_54321",
        family: Family::Dbt,
        title: words("Five, four, three, two, one", "Cinco, cuatro, tres, dos, uno"),
        steps: &[
            words(
                "Name five things that you see and four that you can touch.",
                "Nombra cinco cosas que ves y cuatro que puedes tocar.",
            ),
            words("Name three things that you hear.", "Nombra tres cosas que oyes."),
            words(
                "Name two things that you smell and one that you taste.",
                "Nombra dos cosas que hueles y una que saboreas.",
            ),
            words("Tell yourself where you are and what day it is.", "Dite dónde estás y qué día es."),
        ],
    },
    Skill {
        id: "leave_the_place",
        family: Family::Cbt,
        title: words("Leave the place", "Salir del lugar"),
        steps: &[
            words(
                "You owe nobody a reason: one short sentence is enough.",
                "No le debes razones a nadie: basta una frase corta.",
            ),
            words(
                "Go where nothing is at hand: outside, a shop, a library.",
                "Ve a donde no haya nada a la mano: la calle, una tienda, una biblioteca.",
            ),
            words("Tell somebody you trust where you are.", "Dile a alguien de confianza dónde estás."),
        ],
    },
    Skill {
        id: "call_somebody",
        family: Family::Social,
        title: words("Call somebody", "Llamar a alguien"),
        steps: &[
            words(
                "Choose one person from your list who is good to talk to.",
                "Elige de tu lista a una persona con quien sea bueno hablar.",
            ),
            words(
                "Say how strong the urge is, from 0 to 10.",
                "Di qué tan fuertes son las ganas, de 0 a 10.",
            ),
            words(
                "Ask for what helps: to listen, to come over, to talk of something else.",
                "Pide lo que ayuda: que escuche, que venga, que hablen de otra cosa.",
            ),
            words(
                "Nobody answers? Try the next one, or a helpline.",
                "¿Nadie contesta? Prueba con la siguiente persona o una línea de ayuda.",
            ),
        ],
    },
    Skill {
        id: "delay_and_distract",
        family: Family::Cbt,
        title: words("Wait and do something else", "Esperar y hacer otra cosa"),
        steps: &[
            words(
                "Put the decision off for fifteen minutes, and set a timer.",
                "Deja la decisión para dentro de quince minutos y pon un reloj.",
            ),
            words(
                "Do something that takes hands or head: dishes, a game, a walk.",
                "Haz algo que ocupe las manos o la cabeza: platos, un juego, una caminata.",
            ),
            words(
                "When the timer rings, see how strong the urge is now.",
                "Cuando suene, mira qué tan fuertes son las ganas ahora.",
            ),
            words("Wait once more if you need to.", "Espera otra vez si lo necesitas."),
        ],
    },
    Skill {
        id: "urge_surfing",
        family: Family::Mindfulness,
        title: words("Surf the urge", "Surfear las ganas"),
        steps: &[
            words("Find where in your body the urge sits.", "Busca en qué parte del cuerpo están las ganas."),
            words(
                "Watch it as you would a wave: it rises, it is high, it falls.",
                "Míralas como una ola: sube, está alta, baja.",
            ),
            words(
                "You need not fight it or follow it; breathe and stay on top.",
                "No tienes que pelear con ella ni seguirla; respira y quédate encima.",
            ),
            words("Notice when it gets smaller. It does.", "Nota cuándo se hace más pequeña. Lo hace."),
        ],
    },
    Skill {
        id: "play_it_forward",
        family: Family::Cbt,
        title: words("Play the tape to the end", "Ver la película hasta el final"),
        steps: &[
            words(
                "Picture the first minutes, and do not stop there.",
                "Imagina los primeros minutos y no pares ahí.",
            ),
            words(
                "Go on: how is it tonight, tomorrow morning, in a week?",
                "Sigue: ¿cómo es esta noche, mañana temprano, en una semana?",
            ),
            words(
                "Now picture that you let it pass. How is it then?",
                "Ahora imagina que lo dejas pasar. ¿Cómo es entonces?",
            ),
            words("Choose the ending that you want.", "Elige el final que quieres."),
        ],
    },
    Skill {
        id: "thought_record",
        family: Family::Cbt,
        title: words("Look at the thought", "Mirar el pensamiento"),
        steps: &[
            words(
                "Write down the thought, in the words in which it came.",
                "Escribe el pensamiento con las palabras con que llegó.",
            ),
            words("What speaks for it? What speaks against it?", "¿Qué habla a favor? ¿Qué habla en contra?"),
            words(
                "What would you tell a friend who thinks this?",
                "¿Qué le dirías a un amigo que piensa esto?",
            ),
            words(
                "Write down a thought that fits all you know.",
                "Escribe un pensamiento que encaje con todo lo que sabes.",
            ),
        ],
    },
    Skill {
        id: "opposite_action",
        family: Family::Dbt,
        title: words("Do the opposite", "Hacer lo contrario"),
        steps: &[
            words(
                "Name the feeling, and what it wants you to do.",
                "Nombra el sentimiento y lo que quiere que hagas.",
            ),
            words("Ask whether doing that would help you today.", "Pregúntate si hacerlo te ayudaría hoy."),
            words(
                "If not, do the opposite, all the way: go out instead of hiding, speak softly instead of shouting.",
                "Si no, haz lo contrario, por completo: sal en vez de esconderte, habla bajo en vez de gritar.",
            ),
        ],
    },
    Skill {
        id: "self_soothe",
        family: Family::Dbt,
        title: words("Be kind to your senses", "Cuidar los sentidos"),
        steps: &[
            words(
                "Choose something warm, soft, quiet or sweet.",
                "Elige algo tibio, suave, tranquilo o dulce.",
            ),
            words(
                "A shower, a blanket, music, tea: one thing at a time.",
                "Una ducha, una manta, música, un té: una cosa a la vez.",
            ),
            words(
                "Stay with it for ten minutes with nothing else.",
                "Quédate con eso diez minutos, sin nada más.",
            ),
        ],
    },
    Skill {
        id: "progressive_relaxation",
        family: Family::Mindfulness,
        title: words("Tense and let go", "Tensar y soltar"),
        steps: &[
            words(
                "Make fists for five seconds, then let go for ten.",
                "Cierra los puños cinco segundos y suéltalos diez.",
            ),
            words(
                "Go on with arms, shoulders, face, belly, legs, feet.",
                "Sigue con brazos, hombros, cara, barriga, piernas, pies.",
            ),
            words("Leave out what hurts.", "Deja fuera lo que duele."),
            words(
                "Feel the difference between tense and loose.",
                "Siente la diferencia entre tenso y suelto.",
            ),
        ],
    },
    Skill {
        id: "plan_next_hour",
        family: Family::Cbt,
        title: words("Plan the next hour", "Planear la próxima hora"),
        steps: &[
            words("Only the next hour counts now.", "Ahora solo cuenta la próxima hora."),
            words(
                "Divide it into three: something to do, somebody to be with, something that is good for you.",
                "Divídela en tres: algo que hacer, alguien con quien estar, algo que te haga bien.",
            ),
            words(
                "Begin with the first one. Plan again in an hour.",
                "Empieza con lo primero. Planea otra vez en una hora.",
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::record::{Coping, Entry, Writer};

    #[test]
    fn each_skill_is_short_and_in_both_languages() {
        let ids: BTreeSet<_> = SKILLS.iter().map(|skill| skill.id).collect();
        assert_eq!(ids.len(), SKILLS.len(), "each id once");
        for known in SKILLS {
            assert_eq!(skill(known.id), Some(known));
            assert!((3..=4).contains(&known.steps.len()), "{}", known.id);
            for text in known.steps.iter().chain([&known.title]) {
                assert!(text.get("en") != text.get("es") && !text.get("es").is_empty(), "{}", known.id);
                assert!(text.get("en").chars().count() <= 110 && text.get("es").chars().count() <= 110);
            }
        }
        for family in [Family::Cbt, Family::Dbt, Family::Mindfulness, Family::Social] {
            assert!(SKILLS.iter().any(|skill| skill.family == family));
        }
    }

    #[test]
    fn a_record_can_name_each() {
        for skill in SKILLS {
            let coping = Coping::default().skill(skill.id);
            assert_eq!(Entry::new(coping).validate(Writer::Patient), Ok(()));
        }
    }

    #[test]
    fn languages_are_told_by_their_first_part() {
        let title = skill("breathing").unwrap().title;
        for (language, expected) in [
            ("es", "Respirar despacio"),
            ("ES-us", "Respirar despacio"),
            ("es_MX", "Respirar despacio"),
            ("en", "Slow breathing"),
            ("est", "Slow breathing"),
            ("", "Slow breathing"),
        ] {
            assert_eq!(title.get(language), expected, "{language}");
        }
    }
}
