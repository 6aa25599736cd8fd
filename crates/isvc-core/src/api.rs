//! The parts of the `serving.kserve.io` API a decision needs, read leniently.
//!
//! Specifications arrive as JSON and keep what we do not interpret (containers, Pod fields) as JSON: nothing is
//! lost, whatever version of Kubernetes wrote it. What we do interpret is checked while reading, and a wrong type
//! names its field.

pub mod canary;
pub mod component;
pub(crate) mod fields;
pub mod inference_service;
pub mod meta;
pub mod serving_runtime;
pub mod status;
pub mod storage_container;

pub use canary::Canary;
pub use component::{Component, Model};
pub use fields::InvalidField;
pub(crate) use fields::json_type;
pub use inference_service::{ComponentKind, InferenceService, InferenceServiceSpec};
pub use meta::{Meta, OwnerReference};
pub use serving_runtime::{Scope, ServingRuntime};
pub use status::{Condition, ConditionStatus, InferenceServiceStatus};
pub use storage_container::StorageContainer;

/// A JSON object.
pub type Object = serde_json::Map<String, serde_json::Value>;
