//! Rules of `KServe`'s validating webhook that the API server itself can check, in the Common Expression Language.
//!
//! Two things are beyond them, and found by [`validate`](crate::validate), which knows every rule but the one that needs
//! the object of before:
//!
//! - Whatever depends on an annotation (deployment mode, autoscaler class): of the metadata a rule sees only the name.
//! - Whatever looks long into unbounded lists (environment variables of all containers, `..` in paths): the API server
//!   refuses a definition whose rules might cost too much, and estimates the cost from the bounds in the schema, which
//!   are `KServe`'s.
//!
//! The words are `KServe`'s, and a rule refuses nothing that its webhook accepts. A rule about an object that exists is
//! looked at again only when the object it is about changes (from Kubernetes 1.30 on), so a service that broke one before
//! it was installed still gets its status.

use serde_json::{Value, json};

use crate::policy::cel;

/// One rule and what the API server says where it is broken.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    expression: String,
    message: Message,
    field: Option<&'static str>,
    only_at_creation: bool,
}

#[derive(Clone, Debug)]
enum Message {
    Text(String),
    /// One that quotes a value.
    Expression(&'static str),
}

impl Rule {
    fn new(expression: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            expression: expression.into(),
            message: Message::Text(message.into()),
            field: None,
            only_at_creation: false,
        }
    }

    /// The same rule with a message that is an expression itself.
    fn saying(mut self, expression: &'static str) -> Self {
        self.message = Message::Expression(expression);
        self
    }

    /// The field that is to blame, below the object the rule is about.
    fn about(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    /// An entry of `x-kubernetes-validations`.
    pub(super) fn into_json(self) -> Value {
        let mut rule = json!({"rule": self.expression});
        match self.message {
            Message::Text(text) => rule["message"] = Value::from(text),
            Message::Expression(expression) => rule["messageExpression"] = Value::from(expression),
        }
        if self.only_at_creation {
            rule["rule"] = Value::from(format!("oldSelf.hasValue() || {}", self.expression));
            rule["optionalOldSelf"] = Value::from(true);
        }
        if let Some(field) = self.field {
            rule["fieldPath"] = Value::from(format!(".{field}"));
        }
        rule
    }
}

/// About the whole object. It changes with every status, and its name never does, so this is asked once.
pub(super) fn name() -> Rule {
    Rule {
        expression: "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')".to_owned(),
        only_at_creation: true,
        message: Message::Expression(
            "'the InferenceService \"' + self.metadata.name + '\" is invalid: a InferenceService name must consist of lower \
             case alphanumeric characters or \\'-\\', and must start with alphabetical character. (e.g. \"my-name\" or \
             \"abc-123\", regex used for validation is \\'[a-z]([-a-z0-9]*[a-z0-9])?\\')'",
        ),
        field: None,
    }
}

/// About the `spec` of a policy template, whose lists have bounds in the schema.
pub(super) fn policy_template() -> Vec<Rule> {
    let words: Vec<String> = cel::RESERVED.iter().map(|word| format!("'{word}'")).collect();
    let words = words.join(", ");
    vec![
        Rule::new(
            format!("!has(self.parameters) || self.parameters.all(it, !(it.name in [{words}]))"),
            "the name of a parameter must not be a word of the expression language",
        )
        .about("parameters"),
        Rule::new(
            format!("!has(self.variables) || self.variables.all(it, !(it.name in ['params', {words}]))"),
            "the name of a variable must not be params, which has the parameters, nor a word of the expression language",
        )
        .about("variables"),
        Rule::new(
            "self.validations.all(it, has(it.message) || has(it.messageExpression))",
            "every validation needs a message or a messageExpression",
        )
        .about("validations"),
    ]
}

/// About a label selector, whose list has a bound in the schema. The API server says the same of the selectors of its own
/// objects, but about those of a custom resource it says nothing by itself.
pub(super) fn label_selector() -> Vec<Rule> {
    vec![
        Rule::new(
            "!has(self.matchExpressions) || self.matchExpressions.all(it, (it.operator in ['In', 'NotIn']) == \
             (has(it.values) && it.values.size() > 0))",
            "In and NotIn need values, Exists and DoesNotExist must have none",
        )
        .about("matchExpressions"),
    ]
}

/// About the predictor, whose models are described by one of `blocks`.
pub(super) fn predictor(blocks: &[&str]) -> Vec<Rule> {
    let given: Vec<String> = blocks.iter().map(|block| format!("has(self.{block})")).collect();
    let count = format!("[{}].filter(given, given).size()", given.join(", "));
    let exactly_one = |expression: String| {
        Rule::new(
            expression,
            "exactly one of [Name, SKLearn, XGBoost, Tensorflow, PyTorch, Triton, ONNX, HuggingFace, PMML, LightGBM, \
             Paddle, Model, StorageUris, StorageContainerName, WorkerSpec, PodSpec] must be specified in PredictorSpec",
        )
    };
    let mut rules = vec![
        exactly_one(format!("{HAS_CONTAINERS} ? {count} <= 1 : {count} == 1")),
        // Beside a model there are only side containers.
        exactly_one(format!(
            "{count} == 0 || !has(self.containers) || self.containers.all(it, !has(it.name) || it.name != \
             'kserve-container')"
        )),
        Rule::new(
            every(blocks, |block| {
                format!("(!has(self.{block}) || !has(self.{block}.name) || self.{block}.name == '')")
            }),
            "the 'name' field is not allowed in standard predictor",
        ),
        Rule::new(
            format!(
                "!has(self.storageUris) || ({})",
                every(blocks, |block| format!(
                    "(!has(self.{block}) || !has(self.{block}.storageUri))"
                ))
            ),
            "Setting both StorageURI and StorageURIs is not supported.",
        )
        .about("storageUris"),
        Rule::new(
            format!(
                "(has(self.name) ? self.name : '') == (has(oldSelf.name) ? oldSelf.name : '') || ({})",
                every(blocks, |block| {
                    format!(
                        "(!has(self.{block}) || !has(oldSelf.{block}) || !has(self.{block}.storageUri) || \
                         !has(oldSelf.{block}.storageUri) || self.{block}.storageUri != oldSelf.{block}.storageUri)"
                    )
                })
            ),
            "predictor.name change requires a model change (e.g. storageUri)",
        )
        .about("name"),
        Rule::new(
            every(blocks, |block| {
                format!(
                    "(!has(self.{block}) || !has(self.{block}.confidential) || !self.{block}.confidential.enabled || \
                     has(self.{block}.storageUri))"
                )
            }),
            "confidential model serving requires storageUri to be set",
        ),
        Rule::new(
            "!has(self.model) || !has(self.model.confidential) || !self.model.confidential.enabled || \
             !has(self.model.confidential.resourceId) || self.model.confidential.resourceId == '' || \
             self.model.confidential.resourceId.matches('^kbs:///[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$')",
            "",
        )
        .saying(
            "'spec.predictor.confidential.resourceId: Invalid value: \"' + self.model.confidential.resourceId + '\": must be \
             in the format kbs:///<repo>/<type>/<tag>'",
        ),
    ];
    rules.extend(component());
    rules
}

/// About the specification: its variants of the predictor.
pub(super) fn canaries() -> Vec<Rule> {
    vec![
        Rule::new(
            "!has(self.canary) || self.canary.all(it, has(it.predictor.name))",
            "canary[] predictor.name is required",
        )
        .about("canary"),
        Rule::new(
            "!has(self.canary) || self.canary.map(it, it.trafficPercent).sum() <= 100",
            // KServe names the sum; adding up once more for the message would cost too much.
            "sum of canary trafficPercent values must be <= 100",
        )
        .about("canary"),
    ]
}

/// About the transformer.
pub(super) fn transformer() -> Vec<Rule> {
    let mut rules = vec![Rule::new(
        HAS_CONTAINERS,
        "exactly one of [PodSpec, ComponentExtensionSpec] must be specified in TransformerSpec",
    )];
    rules.extend(component());
    rules
}

/// About the explainer.
pub(super) fn explainer() -> Vec<Rule> {
    let mut rules = vec![
        Rule::new(
            format!("has(self.art) != ({HAS_CONTAINERS})"),
            "exactly one of [ART, PodSpec, ComponentExtensionSpec] must be specified in ExplainerSpec",
        ),
        Rule::new(
            "!has(self.storageUris) || !has(self.art) || !has(self.art.storageUri)",
            "Setting both StorageURI and StorageURIs is not supported.",
        )
        .about("storageUris"),
    ];
    rules.extend(component());
    rules
}

const HAS_CONTAINERS: &str = "has(self.containers) && size(self.containers) > 0";

/// About every component.
fn component() -> Vec<Rule> {
    vec![
        Rule::new(
            "!has(self.containerConcurrency) || self.containerConcurrency >= 0",
            "parallelism cannot be less than 0",
        )
        .about("containerConcurrency"),
        Rule::new(
            "!has(self.minReplicas) || self.minReplicas >= 0",
            "'MinReplicas' cannot be less than 0",
        )
        .about("minReplicas"),
        Rule::new(
            "!has(self.maxReplicas) || self.maxReplicas >= 0",
            "'MaxReplicas' cannot be less than 0",
        )
        .about("maxReplicas"),
        Rule::new(
            "!has(self.maxReplicas) || self.maxReplicas <= 0 || (has(self.minReplicas) ? self.minReplicas : 1) <= \
             self.maxReplicas",
            "'MinReplicas' cannot be greater than MaxReplicas",
        )
        .about("minReplicas"),
        Rule::new(
            "!has(self.storageUris) || self.storageUris.all(it, !has(it.mountPath) || it.mountPath != '/')",
            "storage path cannot be empty",
        )
        .about("storageUris"),
        Rule::new("!has(self.logger) || has(self.logger.mode)", "invalid logger type").about("logger"),
        Rule::new(
            "!has(self.logger) || !has(self.logger.storage) || (has(self.logger.storage.path) && \
             has(self.logger.storage.parameters) && has(self.logger.storage.key))",
            "invalid logger storage configuration",
        )
        .about("logger"),
    ]
}

/// A condition that must hold for each block.
fn every(blocks: &[&str], condition: impl Fn(&str) -> String) -> String {
    let conditions: Vec<String> = blocks.iter().map(|block| condition(block)).collect();
    conditions.join(" && ")
}
