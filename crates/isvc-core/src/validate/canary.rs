//! Rules about variants of the predictor.

use std::collections::BTreeSet;

use super::{component, invalid, storage};
use crate::{
    api::{Canary, InferenceServiceSpec},
    rejection::Rejection,
};

pub(super) fn check(spec: &InferenceServiceSpec) -> Result<(), Rejection> {
    if spec.canaries.is_empty() {
        return Ok(());
    }
    if spec.predictor.model.is_none() {
        return Err(invalid(
            "spec.predictor",
            "canary requires the predictor to have a model",
        ));
    }
    let mut names: BTreeSet<&str> = spec.predictor.variant.as_deref().into_iter().collect();
    let mut sum = 0_i64;
    for (index, canary) in spec.canaries.iter().enumerate() {
        one(index, canary, spec)?;
        if !names.insert(canary.name()) {
            return Err(invalid(
                &canary.predictor.field("name"),
                format!(
                    "canary[{index}] predictor.name \"{}\" is taken; it must differ from the predictor's and from other \
                     canaries'",
                    canary.name()
                ),
            ));
        }
        sum += i64::from(canary.traffic_percent);
    }
    if sum > 100 {
        let message = format!("sum of canary trafficPercent values ({sum}) must be <= 100");
        return Err(invalid("spec.canary", message));
    }
    Ok(())
}

fn one(index: usize, canary: &Canary, spec: &InferenceServiceSpec) -> Result<(), Rejection> {
    if canary.name().is_empty() {
        let message = format!("canary[{index}] predictor.name is required");
        return Err(invalid(&canary.predictor.field("name"), message));
    }
    if !super::NAME.is_match(canary.name()) {
        let message = format!(
            "canary[{index}] predictor.name \"{}\" must consist of lower case letters, digits or '-', start with a letter \
             and end with a letter or digit",
            canary.name()
        );
        return Err(invalid(&canary.predictor.field("name"), message));
    }
    if !(0..=100).contains(&canary.traffic_percent) {
        let message = format!("canary[{index}] trafficPercent must be between 0 and 100");
        return Err(invalid(&format!("spec.canary[{index}].trafficPercent"), message));
    }
    if let Some(field) = canary.forbidden.first() {
        let message = format!("canary[{index}] predictor.{field} is not allowed; a canary is scaled by its share");
        return Err(invalid(&canary.predictor.field(field), message));
    }
    let stable = spec.predictor.min_replicas.unwrap_or(1);
    if canary.given.min_replicas.is_some_and(|replicas| replicas > stable) {
        let message =
            format!("canary[{index}] predictor.minReplicas must not be greater than the predictor's, {stable}");
        return Err(invalid(&canary.predictor.field("minReplicas"), message));
    }
    component::predictor(&canary.predictor)?;
    storage::check(&canary.predictor)?;
    component::check(&canary.predictor)
}
