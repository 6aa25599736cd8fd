//! Where models are brought into Pods: switched by the operator's `ConfigMap` while it runs.

use std::sync::atomic::{AtomicBool, Ordering};

use isvc_core::observed::StorageInjection;

/// The way in force.
#[derive(Debug, Default)]
pub(crate) struct Injection {
    annotations: AtomicBool,
}

impl Injection {
    pub(crate) fn now(&self) -> StorageInjection {
        if self.annotations.load(Ordering::Relaxed) {
            StorageInjection::Annotations
        } else {
            StorageInjection::Deployment
        }
    }

    /// Returns whether that is another way than before.
    pub(crate) fn set(&self, injection: StorageInjection) -> bool {
        let annotations = injection == StorageInjection::Annotations;
        self.annotations.swap(annotations, Ordering::Relaxed) != annotations
    }
}
