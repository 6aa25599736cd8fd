//! Watches: a stream of JSON lines over the store's history.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Shared,
    answer::{expired, shape},
    body::{self, Ending, broken},
    request::RecordedRequest,
    selector::Selector,
    store::{Change, Source, kind_of},
};

/// kube-apiserver's interval of bookmarks is about a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// kube-apiserver's least watch timeout when the client names none (`--min-request-timeout`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

struct Watch {
    shared: Arc<Shared>,
    request: RecordedRequest,
    kind: &'static str,
    selector: Selector,
    /// The last revision this watch has told everything of.
    position: u64,
    queued: Vec<io::Result<Bytes>>,
    generation: u64,
    /// How many of the interjections so far this watch has heard.
    heard: usize,
    /// Says nothing any more, and does not end either.
    silent: bool,
    ends: Instant,
    bookmarks: bool,
    next_bookmark: Instant,
    wake: tokio::sync::watch::Receiver<u64>,
    over: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.open_watches.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a test says to all open watches.
#[derive(Clone)]
pub(super) enum Interjection {
    /// A line of the test's own.
    Said(Bytes),
    /// Half a line, and that end.
    Cut(Ending),
    /// Nothing more.
    Silence,
}

/// The lines of a watch.
pub(super) fn lines(
    shared: &Arc<Shared>,
    request: &RecordedRequest,
    from: u64,
    selector: Selector,
    initial: Vec<Value>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    shared.open_watches.fetch_add(1, Ordering::SeqCst);
    let now = Instant::now();
    let timeout = request
        .query("timeoutSeconds")
        .and_then(|seconds| seconds.parse().ok())
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let bookmarks = request
        .query("allowWatchBookmarks")
        .is_some_and(|value| value == "true");
    let (generation, heard) = {
        let state = shared.state();
        (state.watch_generation, state.interjections.len())
    };
    let mut watch = Watch {
        wake: shared.wake.subscribe(),
        shared: Arc::clone(shared),
        request: request.clone(),
        kind: kind_of(&request.resource).expect("the answer refused resources without a kind"),
        selector,
        position: from,
        queued: Vec::new(),
        generation,
        heard,
        silent: false,
        ends: now + timeout,
        bookmarks,
        next_bookmark: now + BOOKMARK_INTERVAL,
        over: false,
    };
    let seen = {
        let state = shared.state();
        (!state.store.remembers(from)).then(|| state.store.seen(Source::Cache))
    };
    if let Some(seen) = seen {
        let answer = expired(&format!("too old resource version: {from} ({seen})"));
        watch
            .queued
            .push(Ok(encode(&json!({"type": "ERROR", "object": answer.body}))));
        watch.over = true;
    }
    for object in initial {
        let line = watch.line("ADDED", object);
        watch.queued.push(Ok(line));
    }
    if bookmarks && request.query("sendInitialEvents").is_some_and(|value| value == "true") {
        let line = watch.bookmark(from, json!({"k8s.io/initial-events-end": "true"}));
        watch.queued.push(Ok(line));
    }
    watch.queued.reverse();
    stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    })
}

impl Watch {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(line) = self.queued.pop() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            if self.silent {
                std::future::pending::<()>().await;
            }
            self.wake.borrow_and_update();
            if self.catch_up() {
                continue;
            }
            let next_bookmark = self.next_bookmark;
            tokio::select! {
                biased;
                // The sender lives in `shared`, so this cannot end by closing.
                _ = self.wake.changed() => {}
                () = tokio::time::sleep_until(self.ends) => self.over = true,
                () = tokio::time::sleep_until(next_bookmark), if self.bookmarks => {
                    self.next_bookmark += BOOKMARK_INTERVAL;
                    let seen = self.shared.state().store.seen(Source::Cache);
                    self.position = self.position.max(seen);
                    let line = self.bookmark(self.position, Value::Null);
                    self.queued.push(Ok(line));
                }
            }
        }
    }

    /// Queues what happened since the last time; says whether something is queued or the watch is over.
    fn catch_up(&mut self) -> bool {
        let (changes, seen, interjections) = {
            let state = self.shared.state();
            if state.watch_generation != self.generation {
                self.over = true;
                return true;
            }
            (
                state.store.changes_after(self.position),
                state.store.seen(Source::Cache),
                state.interjections[self.heard..].to_vec(),
            )
        };
        self.position = self.position.max(seen);
        self.heard += interjections.len();
        let events = changes.into_iter().filter_map(|change| self.event(change));
        let mut lines: Vec<io::Result<Bytes>> = events.map(Ok).collect();
        let spoken_to = !interjections.is_empty();
        for interjection in interjections {
            match interjection {
                Interjection::Said(line) => lines.push(Ok(line)),
                Interjection::Cut(ending) => {
                    // The beginning of any line.
                    let line = self.bookmark(self.position, Value::Null);
                    lines.push(Ok(line.slice(..line.len() / 2)));
                    match ending {
                        Ending::Broken => lines.push(Err(broken())),
                        Ending::Early => {}
                        Ending::Silent => self.silent = true,
                    }
                    self.over = !self.silent;
                    break;
                }
                Interjection::Silence => {
                    self.silent = true;
                    break;
                }
            }
        }
        lines.reverse();
        self.queued = lines;
        spoken_to || !self.queued.is_empty()
    }

    /// What a change looks like through the selector.
    fn event(&self, change: Change) -> Option<Bytes> {
        if change.resource != self.request.resource {
            return None;
        }
        let sees = |object: &Option<Value>| {
            object.as_ref().is_some_and(|object| {
                self.request
                    .namespace
                    .as_deref()
                    .is_none_or(|wanted| object["metadata"]["namespace"] == wanted)
                    && self.selector.matches(object)
            })
        };
        match (sees(&change.before), sees(&change.after)) {
            (false, false) => None,
            (false, true) => change.after.map(|object| self.line("ADDED", object)),
            (true, true) => change.after.map(|object| self.line("MODIFIED", object)),
            // Gone, or only gone from the selection: the last state that was selected, at the version of the change.
            (true, false) => change.before.map(|mut object| {
                object["metadata"]["resourceVersion"] = json!(change.revision.to_string());
                self.line("DELETED", object)
            }),
        }
    }

    fn line(&self, event: &str, object: Value) -> Bytes {
        let object = shape(object, self.request.metadata_only(), self.kind);
        encode(&json!({"type": event, "object": object}))
    }

    fn bookmark(&self, revision: u64, annotations: Value) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if !annotations.is_null() {
            metadata["annotations"] = annotations;
        }
        self.line("BOOKMARK", json!({"metadata": metadata}))
    }
}

fn encode(event: &Value) -> Bytes {
    let mut line = body::json(event);
    line.push('\n');
    Bytes::from(line)
}
