//! What a watch holds.

use std::time::Duration;

use super::{InvalidOptions, MIB, MOST_SECRETS, between, check};

/// The most namespaces watched one by one.
const MOST_NAMESPACES: usize = 64;

/// What [`Mode::Watch`](crate::Mode::Watch) holds, and how it keeps it current.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchOptions {
    /// The namespaces to watch, each by a watch of its own. Default: none given, which is one watch on all of them.
    pub namespaces: Vec<String>,
    /// A label selector in the API's own syntax, such as `app=web,tier!=test`. Default: none, which is every label.
    pub labels: Option<String>,
    /// Which types of Secret are held. Default: all but `helm.sh/release.v1`, whose Secrets are big, many and read by Helm
    /// alone.
    pub types: TypeSelector,
    /// The most Secrets held. When there are more the watch ends, in the middle of its first list if need be, and reads
    /// become requests. Default: 2000.
    pub max_secrets: usize,
    /// The most bytes held, by [`SecretSnapshot::cost`](crate::SecretSnapshot::cost) and the store's own structures, with the
    /// same consequence. Default: 64 MiB.
    pub max_bytes: usize,
    /// How long one watch request lasts before it is renewed. Default: 30 s. One that is silent for 5 s beyond that is
    /// taken for dead, so this bounds how long a broken connection or a revoked right goes unnoticed.
    pub heartbeat: Duration,
    /// Ask for the first list as a stream (`sendInitialEvents`), which API servers offer from Kubernetes 1.34, before asking
    /// for it in pages. Default: true.
    pub streaming: bool,
    /// Objects in a page, where the first list is read in pages. Default: 500.
    pub page_size: u32,
    /// How long a denial of the rights is believed, and the first wait after too much was found; the latter doubles each
    /// time, up to 1 h. Default: 5 min.
    pub retry_denied_after: Duration,
    /// After too much was found, the next first list must stay below this many percent of both bounds. Default: 70, so that
    /// a cluster at the threshold does not begin again and again.
    pub return_below_percent: u8,
}

/// Which types of Secret a watch selects. The type of a Secret never changes, so none enters or leaves a selection by it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeSelector {
    /// Secrets of this type only.
    Only(String),
    /// All but these types.
    Except(Vec<String>),
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            labels: None,
            types: TypeSelector::Except(vec!["helm.sh/release.v1".into()]),
            max_secrets: 2000,
            max_bytes: 64 * MIB,
            heartbeat: Duration::from_secs(30),
            streaming: true,
            page_size: 500,
            retry_denied_after: Duration::from_secs(300),
            return_below_percent: 70,
        }
    }
}

impl WatchOptions {
    /// Checks each field's range.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        check(
            self.namespaces.len() <= MOST_NAMESPACES,
            "watch.namespaces",
            "must be at most 64: each takes a connection; watch all of them instead",
        )?;
        check(
            self.namespaces
                .iter()
                .all(|namespace| crate::secret_ref::is_namespace(namespace)),
            "watch.namespaces",
            "must be names of namespaces: DNS labels of at most 63 characters",
        )?;
        let plain = |text: &str| text.len() <= 1024 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        check(
            self.labels
                .as_deref()
                .is_none_or(|labels| !labels.is_empty() && plain(labels)),
            "watch.labels",
            "must be a label selector of at most 1024 printable ASCII characters",
        )?;
        // A field selector joins terms by commas and escapes nothing that a Secret's type is likely to hold.
        let type_ = |text: &String| !text.is_empty() && plain(text) && !text.contains([',', '=', '!', '\\', ' ']);
        check(
            match &self.types {
                TypeSelector::Only(only) => type_(only),
                TypeSelector::Except(except) => except.len() <= 32 && except.iter().all(type_),
            },
            "watch.types",
            "must be at most 32 types of Secrets, none of them empty, without any of `,=!\\` and blanks",
        )?;
        check(
            (1..=MOST_SECRETS).contains(&self.max_secrets),
            "watch.max_secrets",
            "must be between 1 and 1000000",
        )?;
        check(self.max_bytes > 0, "watch.max_bytes", "must be greater than 0")?;
        check(
            between(self.heartbeat, Duration::from_secs(5), Duration::from_secs(60)),
            "watch.heartbeat",
            "must be between 5 s and 1 min",
        )?;
        check(
            (1..=5000).contains(&self.page_size),
            "watch.page_size",
            "must be between 1 and 5000",
        )?;
        check(
            between(
                self.retry_denied_after,
                Duration::from_secs(1),
                Duration::from_secs(24 * 3600),
            ),
            "watch.retry_denied_after",
            "must be between 1 s and 24 h",
        )?;
        check(
            (1..100).contains(&self.return_below_percent),
            "watch.return_below_percent",
            "must be between 1 and 99",
        )
    }
}
