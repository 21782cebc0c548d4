//! What Ebb knows of withdrawal treatment: pure functions of records, plan and time. They read no clock,
//! no database and no network, so phone and desk come to the same result.

pub mod instrument;
