//! What leanserve's tests and its demo stand on.
//!
//! | module | what it gives |
//! |---|---|
//! | [`fake_api`] | an in-memory API server for `core/v1` objects that are read by name, with scripted faults |
//! | [`control_plane`] | a real control plane on loopback: etcd, API server, controllers, scheduler, simulated nodes |
//! | [`audit`] | what was asked of that API server, by whom |
//! | [`operator`] | a program under test as a child process: its log, memory, and ways to end it |
//! | [`mod@eventually`] | the one way to wait for something |
//! | [`captured_logs`] | everything that is logged at TRACE, to search for what must not be there |
//! | [`cargo_bin`] | the path of a program of this workspace, built when needed |
//! | [`assets`], [`process`], [`kubeconfig`] | what the control plane is made of |
//!
//! The program `control-plane` in this crate runs a control plane from a terminal.

pub mod assets;
pub mod audit;
pub mod captured_logs;
pub mod control_plane;
pub mod eventually;
pub mod fake_api;
pub mod kubeconfig;
pub mod operator;
pub mod process;

mod cargo_bin;
mod error;

pub use self::{
    cargo_bin::cargo_bin,
    control_plane::{ControlPlane, Options, TestNamespace},
    error::Error,
    eventually::{eventually, try_eventually},
    operator::{Memory, Operator},
};
