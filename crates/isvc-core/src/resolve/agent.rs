//! The agent: a container before the server that logs and batches requests.

use std::collections::BTreeMap;

use crate::{
    api::{Component, Object},
    observed::Observed,
    rejection::Rejection,
    settings::Settings,
};

/// The annotations by which the agent is asked for.
pub(super) fn annotations(_component: &Component, _settings: &Settings) -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// Adds the agent to a Pod, if the component logs or batches.
pub(super) fn inject(
    _pod: &mut Object,
    _component: &Component,
    _annotations: &BTreeMap<String, String>,
    _observed: &Observed,
) -> Result<(), Rejection> {
    Ok(())
}
