//! What a `KServe` `InferenceService` resolves to in Standard mode: a pure core.
//!
//! No client, no async runtime, no clock, no environment. A pass goes
//!
//! ```text
//! Observed --resolve--> Resolved --build--> DesiredState     (build cannot fail)
//!                  \--> Rejection
//! Observed + resolution + what apply said + now --report--> Report { status, events }
//! ```
//!
//! and whatever goes in comes from the caller as plain data. Secret values never come in, only
//! [`credential::CredentialFacts`].

pub mod api;
pub mod build;
pub mod compare;
pub mod condition;
pub mod crd;
pub mod credential;
pub mod decide;
pub mod defaults;
pub mod desired;
mod json;
pub mod manifests;
pub mod merge;
mod named;
pub mod names;
pub mod observed;
pub mod policy;
pub mod quantity;
pub mod readiness;
pub mod references;
pub mod rejection;
pub mod render;
pub mod report;
pub mod resolve;
pub mod settings;
pub mod template;
pub mod validate;
