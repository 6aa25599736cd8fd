//! An API server in memory: as much of it as passes use.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It is refused with this code.
    Answer(u16),
    /// It is refused with this code and this message.
    Message(u16, &'static str),
    /// The connection breaks before the server has read it.
    Reset,
    /// The server does it, and its answer is lost.
    AnswerLost,
    /// The server does it, and its answer cannot be read.
    Garbage,
}

#[derive(Default)]
pub(super) struct Server(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    calls: usize,
    writes: usize,
    deletes: usize,
    fault: Option<(usize, Fault)>,
    standing: Option<(&'static str, &'static str, Fault)>,
}

type Answer = (u16, Value);

impl Server {
    /// A client of this server, without retries of its own.
    pub(super) fn client(self: &Arc<Self>) -> Client {
        let server = Arc::clone(self);
        let service = service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&server);
            async move { server.call(request).await }
        });
        Client::new(service, "default")
    }

    /// Somebody creates an object.
    pub(super) fn create(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state();
        let name = path.rsplit('/').next().expect("paths have a last part");
        let namespace = path
            .split("/namespaces/")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!(namespace.unwrap_or_default());
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        state.store(path, object)
    }

    /// Somebody changes an object.
    pub(super) fn patch(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        let mut object = state.objects[path].clone();
        change(&mut object);
        state.store(path, object);
    }

    /// Somebody deletes an object.
    pub(super) fn remove(&self, path: &str) {
        self.state().objects.remove(path);
    }

    pub(super) fn list(&self, plural: &str) -> Vec<Value> {
        let part = format!("/{plural}/");
        self.state()
            .objects
            .iter()
            .filter(|(path, _)| path.contains(&part))
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(super) fn objects(&self) -> BTreeMap<String, Value> {
        self.state().objects.clone()
    }

    /// Lets one call go wrong; they are counted from 0.
    pub(super) fn fail(&self, call: usize, fault: Fault) {
        self.state().fault = Some((call, fault));
    }

    /// Lets all calls of a method on a path go wrong.
    pub(super) fn fail_always(&self, method: &'static str, path: &'static str, fault: Fault) {
        self.state().standing = Some((method, path, fault));
    }

    /// Calls so far, Events left out.
    pub(super) fn calls(&self) -> usize {
        self.state().calls
    }

    /// Calls that were to change something, Events left out.
    pub(super) fn writes(&self) -> usize {
        self.state().writes
    }

    pub(super) fn deletes(&self) -> usize {
        self.state().deletes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    async fn call(&self, request: Request<Body>) -> Result<Response<Full<Bytes>>, BoxError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        if path.contains("/events") {
            return Ok(response((201, body)));
        }
        let mut state = self.state();
        let fault = state.fault_of(&head.method, path);
        match fault {
            Some(Fault::Answer(code)) => return Ok(response(status(code, "refused by the test"))),
            Some(Fault::Message(code, message)) => return Ok(response(status(code, message))),
            Some(Fault::Reset) => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Some(Fault::AnswerLost | Fault::Garbage) | None => {}
        }
        let answer = state.answer(&head.method, path, query, body);
        match fault {
            Some(Fault::AnswerLost) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Some(Fault::Garbage) => Ok(Response::new(Full::new(Bytes::from_static(b"<html>")))),
            _ => Ok(response(answer)),
        }
    }
}

impl State {
    fn fault_of(&mut self, method: &Method, path: &str) -> Option<Fault> {
        let call = self.calls;
        self.calls += 1;
        self.writes += usize::from(method != Method::GET);
        let once = self.fault.filter(|(at, _)| *at == call).map(|(_, fault)| fault);
        let standing = self.standing.filter(|(of, at, _)| method == *of && path == *at);
        once.or(standing.map(|(_, _, fault)| fault))
    }

    fn answer(&mut self, method: &Method, path: &str, query: &str, body: Value) -> Answer {
        match method.as_str() {
            "GET" => self
                .objects
                .get(path)
                .map_or_else(|| status(404, "not found"), |object| (200, object.clone())),
            "PATCH" if body.is_array() => self.json_patch(path, &body),
            "PATCH" => self.apply(path, query, body),
            "PUT" => self.replace_status(path, &body),
            "DELETE" => self.delete(path, &body),
            _ => status(405, "no such method"),
        }
    }

    fn apply(&mut self, path: &str, query: &str, mut body: Value) -> Answer {
        assert!(query.contains("fieldManager=leanserve"), "{query}");
        let held = self.objects.get(path);
        let asked = body["metadata"]
            .as_object_mut()
            .expect("metadata is sent")
            .remove("uid");
        if asked.is_some() && asked.as_ref() != held.map(|held| &held["metadata"]["uid"]) {
            return status(409, "uid mismatch");
        }
        let version = body["metadata"]
            .as_object_mut()
            .expect("metadata is sent")
            .remove("resourceVersion");
        if let (Some(version), Some(held)) = (&version, held)
            && *version != held["metadata"]["resourceVersion"]
        {
            return status(409, "the object has been modified");
        }
        let shared = path.contains("/configmaps/");
        assert!(
            version.is_some() || asked.is_some() || shared,
            "an object is created or is ours, or is not written"
        );
        body["metadata"]["managedFields"] = json!([{"manager": "leanserve", "operation": "Apply", "fieldsV1": {}}]);
        (200, self.store(path, body))
    }

    fn replace_status(&mut self, path: &str, body: &Value) -> Answer {
        let path = path.strip_suffix("/status").expect("only the status is replaced");
        let Some(held) = self.objects.get(path) else {
            return status(404, "not found");
        };
        for field in ["uid", "resourceVersion"] {
            if body["metadata"][field] != held["metadata"][field] {
                return status(409, "the object has been modified");
            }
        }
        let mut object = held.clone();
        object["status"] = body["status"].clone();
        (200, self.store(path, object))
    }

    fn json_patch(&mut self, path: &str, body: &Value) -> Answer {
        let path = path.strip_suffix("/status").unwrap_or(path);
        let Some(held) = self.objects.get(path) else {
            return status(404, "not found");
        };
        let mut object = held.clone();
        for operation in body.as_array().into_iter().flatten() {
            let pointer = operation["path"].as_str().expect("operations have a path");
            if let (Some("add"), Some(list)) = (operation["op"].as_str(), pointer.strip_suffix("/-")) {
                let list = object.pointer_mut(list).and_then(Value::as_array_mut);
                list.expect("the tests add to what is there")
                    .push(operation["value"].clone());
                continue;
            }
            let target = object.pointer_mut(pointer).expect("the tests patch what is there");
            match operation["op"].as_str() {
                Some("test") if *target == operation["value"] => {}
                Some("replace") => *target = operation["value"].clone(),
                _ => return status(422, "the server rejected our request"),
            }
        }
        (200, self.store(path, object))
    }

    fn delete(&mut self, path: &str, body: &Value) -> Answer {
        let Some(held) = self.objects.get(path) else {
            return status(404, "not found");
        };
        if body["preconditions"]["uid"] != held["metadata"]["uid"] {
            return status(409, "uid mismatch");
        }
        self.deletes += 1;
        self.objects.remove(path);
        (
            200,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
        )
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let uid = self.objects.get(path).map(|held| held["metadata"]["uid"].clone());
        object["metadata"]["uid"] = uid.unwrap_or_else(|| json!(format!("uid-{}", self.version)));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn status(code: u16, message: &str) -> Answer {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}),
    )
}

fn response((code, body): Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status code");
    response
}
