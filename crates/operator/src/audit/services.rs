//! The names of all services, a page at a time.

use std::collections::VecDeque;

use http::{Request, StatusCode, header};
use isvc_core::names::INFERENCE_SERVICE_API_VERSION;
use serde::Deserialize;

use super::{
    answer::{ListMetadata, Status},
    requests::{Fault, Requests},
};

/// Asks for no more of an object than its metadata.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// How often a list that cannot go on is begun again in a run.
const RESTARTS: u32 = 3;

/// A service to ask about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Service {
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Service {
    /// Where the API server has it.
    pub(super) fn path(&self) -> String {
        let Self { namespace, name } = self;
        format!("/apis/{INFERENCE_SERVICE_API_VERSION}/namespaces/{namespace}/inferenceservices/{name}")
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default)]
    items: VecDeque<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Service,
}

/// What comes next.
pub(super) enum Next {
    Service(Service),
    End,
    Failed(Fault),
}

/// Goes through all services in the order of their names. So a list that expired goes on behind the last name, and each
/// service that is there all the time comes once.
pub(super) struct Services {
    page_size: u32,
    page: VecDeque<Item>,
    /// Where the list goes on; none before the first page, empty behind the last.
    token: Option<String>,
    restarts: u32,
    /// The last name that was given out, to leave out what comes a second time after a restart.
    passed: Option<(String, String)>,
}

impl Services {
    pub(super) fn new(page_size: u32) -> Self {
        Self {
            page_size,
            page: VecDeque::new(),
            token: None,
            restarts: 0,
            passed: None,
        }
    }

    pub(super) async fn next(&mut self, requests: &mut Requests) -> Next {
        loop {
            if let Some(Item { metadata }) = self.page.pop_front() {
                if self.is_new(&metadata) {
                    return Next::Service(metadata);
                }
                continue;
            }
            if self.token.as_deref() == Some("") {
                return Next::End;
            }
            if let Err(fault) = self.fetch(requests).await {
                return Next::Failed(fault);
            }
        }
    }

    fn is_new(&mut self, service: &Service) -> bool {
        let key = (service.namespace.clone(), service.name.clone());
        // Not the order of the storage's keys, where `a-b/x` comes before `a/x`: only what was begun again is compared.
        if self.restarts > 0
            && self
                .passed
                .as_ref()
                .is_some_and(|passed| in_storage(&key) <= in_storage(passed))
        {
            return false;
        }
        self.passed = Some(key);
        true
    }

    async fn fetch(&mut self, requests: &mut Requests) -> Result<(), Fault> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &self.page_size.to_string());
        if let Some(token) = &self.token {
            query.append_pair("continue", token);
        }
        let uri = format!(
            "/apis/{INFERENCE_SERVICE_API_VERSION}/inferenceservices?{}",
            query.finish()
        );
        let answer = requests
            .send(|| Request::get(&uri).header(header::ACCEPT, METADATA).body(Vec::new()))
            .await?;
        match answer.code {
            StatusCode::OK => {
                let page: Page = serde_json::from_slice(&answer.body)
                    .map_err(|error| Fault::new(format!("a list cannot be read: {error}")))?;
                self.page = page.items;
                self.token = Some(page.metadata.continue_);
                Ok(())
            }
            // The definition is not installed: there are no services.
            StatusCode::NOT_FOUND if self.token.is_none() => {
                self.token = Some(String::new());
                Ok(())
            }
            StatusCode::GONE => {
                // The API server forgot the moment of the list, and says how to go on from the last name as things are now.
                let status: Status = serde_json::from_slice(&answer.body).unwrap_or_default();
                let token = status.metadata.continue_;
                if !token.is_empty() {
                    self.token = Some(token);
                    return Ok(());
                }
                self.restarts += 1;
                self.token = None;
                if self.restarts > RESTARTS {
                    return Err(answer.said());
                }
                Ok(())
            }
            _ => Err(answer.said()),
        }
    }
}

/// What the storage sorts by.
fn in_storage((namespace, name): &(String, String)) -> String {
    format!("{namespace}/{name}")
}
