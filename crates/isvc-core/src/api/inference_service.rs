//! `InferenceService`, as far as Standard mode needs it.

use serde_json::Value;

use super::{
    Canary, Component, InferenceServiceStatus, InvalidField, Meta,
    fields::{Fields, without_null},
};

/// An `InferenceService`.
#[derive(Clone, Debug)]
pub struct InferenceService {
    /// Metadata.
    pub meta: Meta,
    /// What the user wants.
    pub spec: InferenceServiceSpec,
    /// What was last reported.
    pub status: InferenceServiceStatus,
}

/// The specification.
#[derive(Clone, Debug, Default)]
pub struct InferenceServiceSpec {
    /// Serves the model.
    pub predictor: Component,
    /// Sits before the predictor.
    pub transformer: Option<Component>,
    /// Explains predictions.
    pub explainer: Option<Component>,
    /// Variants of the predictor that take a share of the requests.
    pub canaries: Vec<Canary>,
    /// Fields that hold something this version does not build, as paths.
    pub unsupported: Vec<String>,
}

impl InferenceServiceSpec {
    /// The components that are given, in the order in which they are reconciled.
    pub fn components(&self) -> impl Iterator<Item = &Component> {
        std::iter::once(&self.predictor)
            .chain(&self.transformer)
            .chain(&self.explainer)
    }

    /// The predictor, its variants, and the components beside it.
    pub fn workloads(&self) -> impl Iterator<Item = &Component> {
        let canaries = self.canaries.iter().map(|canary| &canary.predictor);
        self.components().chain(canaries)
    }

    /// As [`workloads`](Self::workloads), to change them.
    pub fn workloads_mut(&mut self) -> impl Iterator<Item = &mut Component> {
        std::iter::once(&mut self.predictor)
            .chain(&mut self.transformer)
            .chain(&mut self.explainer)
            .chain(self.canaries.iter_mut().map(|canary| &mut canary.predictor))
    }
}

/// Predictor, transformer or explainer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComponentKind {
    /// Serves the model.
    #[default]
    Predictor,
    /// Sits before the predictor.
    Transformer,
    /// Explains predictions.
    Explainer,
}

impl ComponentKind {
    /// The component's name in labels, object names and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Predictor => "predictor",
            Self::Transformer => "transformer",
            Self::Explainer => "explainer",
        }
    }

    /// The component's name in reasons and messages of conditions.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Predictor => "Predictor",
            Self::Transformer => "Transformer",
            Self::Explainer => "Explainer",
        }
    }

    /// Path of the component in the object.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Predictor => "spec.predictor",
            Self::Transformer => "spec.transformer",
            Self::Explainer => "spec.explainer",
        }
    }

    /// The type of the condition that tells whether it is ready.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Predictor => super::status::PREDICTOR_READY,
            Self::Transformer => super::status::TRANSFORMER_READY,
            Self::Explainer => super::status::EXPLAINER_READY,
        }
    }
}

impl InferenceService {
    /// Reads an `InferenceService`.
    ///
    /// # Errors
    /// [`InvalidField`] names the first field that cannot be read.
    pub fn parse(meta: Meta, spec: Value, status: InferenceServiceStatus) -> Result<Self, InvalidField> {
        let mut fields = Fields::new("spec", without_null(spec))?;
        let mut unsupported = Vec::new();
        let stable = fields.object("predictor").cloned().unwrap_or_default();
        let mut canaries = Vec::new();
        for (index, entry) in fields.take_objects("canary")?.into_iter().enumerate() {
            let entry = Fields::new(format!("spec.canary[{index}]"), entry)?;
            canaries.push(Canary::parse(index, entry, &stable, &mut unsupported)?);
        }
        let mut component = |kind: ComponentKind| {
            let found = fields.take_object(kind.as_str())?;
            found
                .map(|found| Component::parse(kind, found, &mut unsupported))
                .transpose()
        };
        let predictor =
            component(ComponentKind::Predictor)?.ok_or_else(|| InvalidField::new("spec.predictor", "is required"))?;
        let transformer = component(ComponentKind::Transformer)?;
        let explainer = component(ComponentKind::Explainer)?;
        Ok(Self {
            meta,
            spec: InferenceServiceSpec {
                predictor,
                transformer,
                explainer,
                canaries,
                unsupported,
            },
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{InferenceService, InferenceServiceStatus, Meta};

    #[test]
    fn null_is_absent_at_every_depth() {
        let spec = json!({"predictor": {
            "containers": [{"name": "kserve-container", "readinessProbe": null, "env": [{"name": "A", "value": null}]}],
            "logger": {"mode": "all", "metadataHeaders": null},
            "nodeSelector": null,
            "affinity": {"podAffinity": null},
        }, "transformer": null});
        let service = InferenceService::parse(Meta::default(), spec, InferenceServiceStatus::default());
        let spec = service.expect("null is no wrong type").spec;
        assert_eq!(
            spec.predictor.containers,
            [json!({"name": "kserve-container", "env": [{"name": "A"}]})]
        );
        assert_eq!(json!(spec.predictor.pod), json!({"affinity": {}}));
        assert!(spec.transformer.is_none());
    }
}
