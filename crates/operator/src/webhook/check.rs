//! Looks up what a service refers to, in its own namespace and nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use isvc_core::{
    decide,
    observed::{ByName, Lookup},
    references::{Finding, References, Severity},
};
use kube_secret_access::{SecretAccess, SecretRef, Want};

use crate::{
    error::PassError,
    key::ObjectKey,
    observe::{Reading, credential},
    service_accounts::ServiceAccounts,
};

/// Secrets of one service that are looked up at the same time.
const READS_AT_ONCE: usize = 4;

/// The most names of one service that are looked up. Each may cost the API server a request.
const MOST_LOOKUPS: usize = 64;

/// Checks services.
pub(crate) struct Checker {
    pub(super) secrets: Arc<dyn SecretAccess>,
    pub(super) accounts: ServiceAccounts,
}

/// How fresh what is looked up has to be.
#[derive(Clone, Copy)]
enum Freshness {
    /// What was read a moment ago will do.
    Recent,
    /// As it is now.
    Now,
}

impl Checker {
    /// What is missing, or cannot be read, of what a service of this namespace refers to.
    ///
    /// Something is told to be missing only when it was missing after the review began: whoever has just made it must not be
    /// told that it is not there.
    pub(super) async fn check(&self, namespace: &str, references: &mut References) -> Result<Vec<Finding>, PassError> {
        let found = self.look_up(namespace, references, Freshness::Recent).await?;
        let mut findings = references.findings(found);
        if findings.iter().any(|finding| finding.severity >= Severity::Harmless) {
            let found = self.look_up(namespace, references, Freshness::Now).await?;
            findings = references.findings(found);
        }
        Ok(findings)
    }

    /// The first [`MOST_LOOKUPS`] of the names; what is behind them is not in what was found.
    async fn look_up(
        &self,
        namespace: &str,
        references: &References,
        freshness: Freshness,
    ) -> Result<ByName, PassError> {
        let wanted = references.wanted();
        let mut names: BTreeSet<String> = wanted.secrets.clone();
        let mut service_accounts = BTreeMap::new();
        for name in wanted.service_accounts.iter().take(MOST_LOOKUPS) {
            let key = ObjectKey::new(namespace, name);
            let found = match freshness {
                Freshness::Recent => self.accounts.read(&key).await?,
                Freshness::Now => self.accounts.read_anew(&key).await?,
            };
            names.extend(decide::secrets_of(wanted, name, &found));
            service_accounts.insert(name.clone(), found);
        }
        let most = MOST_LOOKUPS.saturating_sub(service_accounts.len());
        let storage_secrets = &wanted.storage_secrets;
        let secrets = stream::iter(names.into_iter().take(most))
            .map(|name| async move {
                let want = match freshness {
                    Freshness::Recent => Want::default(),
                    Freshness::Now => Want::quorum(),
                };
                let lookup = match SecretRef::new(namespace, &name) {
                    Ok(secret) => {
                        credential(&*self.secrets, &secret, Reading::of(&name, storage_secrets), want).await?
                    }
                    // No Secret can have such a name.
                    Err(_) => Lookup::Missing,
                };
                Ok::<_, PassError>((name, lookup))
            })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(ByName {
            service_accounts,
            secrets,
            ca_bundle: None,
        })
    }
}
