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
    metadata: ListMetadata,
    // Not by default empty: what is no list must not look like the end of one.
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
        // The order is that of the storage's whole keys, in which `a-b/x` comes before `a/x`.
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

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::Response;
    use kube::{Client, client::Body};
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    /// What a run sees of these answers, and which tokens it gave.
    async fn seen(answers: Vec<(u16, Value)>) -> (Vec<String>, bool, Vec<String>) {
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&tokens);
        let server = service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let token = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "continue");
            let token = token.map(|(_, token)| token.into_owned()).unwrap_or_default();
            given.lock().expect("not poisoned").push(token);
            let (code, body) = answers.lock().expect("not poisoned").pop_front().expect("an answer");
            let body = Body::from(body.to_string().into_bytes());
            let response = Response::builder().status(code).body(body).expect("a response");
            async move { Ok::<_, Infallible>(response) }
        });
        let mut requests = Requests::new(Client::new(server, "default"), 1000);
        let mut services = Services::new(2);
        let mut names = Vec::new();
        let ended = loop {
            match services.next(&mut requests).await {
                Next::Service(service) => names.push(format!("{}/{}", service.namespace, service.name)),
                Next::End => break true,
                Next::Failed(_) => break false,
            }
        };
        let tokens = tokens.lock().expect("not poisoned").clone();
        (names, ended, tokens)
    }

    fn page(names: &[(&str, &str)], token: &str) -> (u16, Value) {
        let items: Vec<Value> = names
            .iter()
            .map(|(namespace, name)| json!({"metadata": {"namespace": namespace, "name": name, "uid": "u"}}))
            .collect();
        (
            200,
            json!({"metadata": {"continue": token, "resourceVersion": "1"}, "items": items}),
        )
    }

    fn gone(token: &str) -> (u16, Value) {
        (
            410,
            json!({"kind": "Status", "message": "expired", "metadata": {"continue": token}}),
        )
    }

    #[tokio::test]
    async fn pages_follow_each_other() {
        let (names, ended, tokens) = seen(vec![page(&[("a", "x"), ("a", "y")], "t1"), page(&[("b", "x")], "")]).await;
        assert_eq!(
            (names, ended),
            (vec!["a/x".to_owned(), "a/y".to_owned(), "b/x".to_owned()], true)
        );
        assert_eq!(tokens, ["", "t1"]);
        let (names, ended, _) = seen(vec![(404, json!({}))]).await;
        assert!(
            names.is_empty() && ended,
            "without the definition there are no services"
        );
    }

    #[tokio::test]
    async fn a_list_that_expired_goes_on_behind_the_last_name() {
        let answers = vec![page(&[("a", "x")], "t1"), gone("t2"), page(&[("a", "z")], "")];
        let (names, ended, tokens) = seen(answers).await;
        assert_eq!((names, ended), (vec!["a/x".to_owned(), "a/z".to_owned()], true));
        assert_eq!(tokens, ["", "t1", "t2"]);
    }

    #[tokio::test]
    async fn one_that_cannot_go_on_begins_again_and_gives_nothing_twice() {
        let answers = vec![
            page(&[("a-b", "x"), ("a", "x")], "t1"),
            gone(""),
            page(&[("a-b", "x"), ("a", "x")], "t2"),
            page(&[("a", "y")], ""),
        ];
        let (names, ended, tokens) = seen(answers).await;
        assert_eq!(names, ["a-b/x", "a/x", "a/y"]);
        assert!(ended);
        assert_eq!(tokens, ["", "t1", "", "t2"]);
    }

    #[tokio::test]
    async fn what_fails_is_not_the_end() {
        for answers in [
            vec![page(&[("a", "x")], "t1"), (403, json!({"message": "no"}))],
            vec![page(&[("a", "x")], "t1"), (200, json!([]))],
            vec![(200, json!({}))],
            vec![gone(""), gone(""), gone(""), gone("")],
        ] {
            let (_, ended, _) = seen(answers.clone()).await;
            assert!(!ended, "{answers:?}");
        }
    }
}
