//! What tests of the modules beside this one observe.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    api::{InferenceService, InferenceServiceStatus, Meta},
    observed::{ByName, Live, Lookup, Observed, ServiceAccountFacts, StorageInjection},
    settings::Settings,
};

/// A service `n/m` with these fields in its predictor; its `ServiceAccount` is there and lists nothing.
pub(super) fn observed(predictor: &Value, settings: Settings) -> Observed {
    let meta = Meta {
        name: "m".to_owned(),
        namespace: "n".to_owned(),
        ..Meta::default()
    };
    let spec = json!({"predictor": predictor});
    let service = InferenceService::parse(meta, spec, InferenceServiceStatus::default());
    let account = Lookup::Found(ServiceAccountFacts::default());
    Observed {
        service: service.expect("a readable specification"),
        settings: Arc::new(settings),
        runtimes: Vec::new(),
        cluster_runtimes: Vec::new(),
        storage_containers: Vec::new(),
        by_name: ByName {
            service_accounts: BTreeMap::from([("default".to_owned(), account)]),
            ..ByName::default()
        },
        live: Live::default(),
        cluster_domain: "cluster.local".to_owned(),
        platform_namespace: "kserve".to_owned(),
        storage_injection: StorageInjection::Deployment,
    }
}
