//! Which Secret is meant: a namespace and a name, checked once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::heap::shared;

/// The longest a namespace may be: a DNS label (RFC 1123).
const MAX_NAMESPACE: usize = 63;
/// The longest a Secret's name may be: a DNS subdomain (RFC 1123), as the API server enforces for object names.
const MAX_NAME: usize = 253;

/// The namespace and name of a Secret. Parsed once; valid ever after.
///
/// Cloning is cheap (two reference counts). Two values are equal exactly when they name the same Secret, whether or not
/// that Secret exists.
///
/// ```
/// use kube_secret_access::SecretRef;
///
/// let secret = SecretRef::new("models", "s3-credentials")?;
/// assert_eq!(secret.to_string(), "models/s3-credentials");
/// assert!(SecretRef::new("models", "../../configmaps/x").is_err());
/// # Ok::<(), kube_secret_access::InvalidSecretRef>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretRef {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl SecretRef {
    /// Checks both parts against the API server's rules: `namespace` is a DNS label of at most 63 characters, `name` a
    /// DNS subdomain of at most 253.
    ///
    /// # Errors
    ///
    /// [`InvalidSecretRef`] names the part and the rule it breaks.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidSecretRef> {
        if !is_namespace(namespace) {
            return Err(InvalidSecretRef::Namespace(excerpt(namespace)));
        }
        // Unlike a namespace, each label of a subdomain may itself be up to 253 characters long: the API server checks
        // the pattern and the total length only.
        let name_fits = name.len() <= MAX_NAME && name.split('.').all(is_dns_label);
        if !name_fits {
            return Err(InvalidSecretRef::Name(excerpt(name)));
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the Secret within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes on the heap, for the accounting of caches.
    pub(crate) fn heap_bytes(&self) -> usize {
        shared(self.namespace.len()) + shared(self.name.len())
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRef({self})")
    }
}

impl FromStr for SecretRef {
    type Err = InvalidSecretRef;

    /// Parses `namespace/name`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| InvalidSecretRef::Shape(excerpt(text)))?;
        Self::new(namespace, name)
    }
}

/// Why a namespace and name cannot denote a Secret. Carries the start of the offending text, at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidSecretRef {
    /// The namespace is no DNS label.
    #[error(
        "namespace {0:?} is not a DNS label: 1 to 63 lower-case letters, digits or '-', beginning and ending with a letter or digit"
    )]
    Namespace(String),
    /// The name is no DNS subdomain.
    #[error(
        "Secret name {0:?} is not a DNS subdomain: 1 to 253 lower-case letters, digits, '-' or '.', each part beginning and ending with a letter or digit"
    )]
    Name(String),
    /// The text is not `namespace/name`.
    #[error("{0:?} is not of the form namespace/name")]
    Shape(String),
}

/// Whether this can be the name of a namespace: a DNS label of at most 63 characters.
pub(crate) fn is_namespace(text: &str) -> bool {
    text.len() <= MAX_NAMESPACE && is_dns_label(text)
}

fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

/// Errors end up in logs and statuses: what a user typed is shown, but not at any length.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_api_server_accepts() {
        for (namespace, name) in [
            ("default", "a"),
            ("kube-system", "sh.helm.release.v1.x.v1"),
            ("0", "0"),
            (&"n".repeat(63), &"s".repeat(253)),
        ] {
            let secret = SecretRef::new(namespace, name).expect("valid by the rules above");
            assert_eq!((secret.namespace(), secret.name()), (namespace, name));
            assert_eq!(secret.to_string().parse(), Ok(secret));
        }
    }

    #[test]
    fn refuses_what_would_leave_the_path_or_never_exist() {
        let long_namespace = "n".repeat(64);
        let long_name = "s".repeat(254);
        for namespace in ["", "A", "a.b", "-a", "a-", "a/b", "ä", "a b", &long_namespace] {
            assert!(
                matches!(SecretRef::new(namespace, "x"), Err(InvalidSecretRef::Namespace(_))),
                "{namespace:?}"
            );
        }
        for name in [
            "", "A", "..", ".a", "a.", "a..b", "a/b", "a?b", "a%2fb", "a\n", "a_b", &long_name,
        ] {
            assert!(
                matches!(SecretRef::new("x", name), Err(InvalidSecretRef::Name(_))),
                "{name:?}"
            );
        }
        assert_eq!(
            "no-slash".parse::<SecretRef>(),
            Err(InvalidSecretRef::Shape("no-slash".into()))
        );
    }

    #[test]
    fn an_error_does_not_carry_a_long_input_along() {
        let error = SecretRef::new("x", &"S".repeat(10_000)).expect_err("upper case is refused");
        assert!(error.to_string().len() < 400);
    }
}
