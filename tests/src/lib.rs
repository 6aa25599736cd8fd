//! What the cluster tests, the benchmarks and the demo share: leanserve installed from `deploy/` on a control plane, and
//! the operator's own binary run against it with the rights of `deploy/` and no more.

pub mod bench;
pub mod cgroup;
pub mod compiled;
pub mod demo;
pub mod e2e;
pub mod failure;
pub mod golden;
pub mod handover;
pub mod installation;
pub mod load;
pub mod policies;
pub mod program;
pub mod prometheus;
pub mod readers;
pub mod report;
pub mod running;
pub mod services;
pub mod settings;
pub mod start;
pub mod table;
pub mod webhook;

pub use failure::Failure;
pub use installation::{Installation, Scope};
pub use prometheus::Prometheus;
pub use running::Running;
