//! Policies on a real API server.

mod audit;
mod templates;

use std::time::Duration;

/// The most anything may take here on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
