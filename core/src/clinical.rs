//! Clinical knowledge: what answers come to, what a plan asks for, what is due, what calls for attention,
//! how things go.
//!
//! Everything here is a pure function of records, plan and time: no store, no clock, no network. Records are
//! gathered in a [`chart::Chart`]; the rest reads it. What a device shows offline and what the care team sees
//! is computed by the same code from the same records.

pub mod chart;
pub mod crisis;
pub mod instrument;
pub mod part2;
pub mod plan;
pub mod rules;
pub mod skills;
pub mod substance;
pub mod today;
pub mod trend;
pub mod words;
