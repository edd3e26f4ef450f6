//! Files become checked types; unknown keys are errors.
