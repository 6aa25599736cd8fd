//! How services are reached: host names, paths and what kind of route is made.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::json;
use thiserror::Error;

use super::{SettingsError, fields::Fields};
use crate::template::{self, Flavour, TemplateError, quote};

/// The domain that makes every service reachable from inside the cluster only.
const INTERNAL_DOMAIN: &str = "svc.cluster.local";

/// Limits and patterns of DNS names in Kubernetes (apimachinery's RFC 1123 checks).
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
const LABEL_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_PATTERN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

static LABEL: LazyLock<Regex> = LazyLock::new(|| pattern(LABEL_PATTERN));
static SUBDOMAIN: LazyLock<Regex> = LazyLock::new(|| pattern(SUBDOMAIN_PATTERN));

fn pattern(pattern: &str) -> Regex {
    // \z and not $, which would let a final line break pass.
    Regex::new(&format!(r"\A(?:{pattern})\z")).expect("the patterns are constants, which tests compile")
}

/// Routes and host names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// Whether `HTTPRoutes` are made, and not Ingresses.
    pub enable_gateway_api: bool,
    /// The Gateway that `HTTPRoutes` attach to; always present with [`Self::enable_gateway_api`].
    pub gateway: Option<GatewayRef>,
    /// Suffix of all host names; `example.com` when unset.
    pub ingress_domain: String,
    /// Go template of a host name; `{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}` when unset.
    pub domain_template: String,
    /// Scheme of `status.url`; `http` when unset.
    pub url_scheme: String,
    /// Class of Ingresses.
    pub ingress_class_name: Option<String>,
    /// More suffixes for the top-level `HTTPRoute`, as configured: neither unique nor checked.
    pub additional_ingress_domains: Vec<String>,
    /// Go template of a path on the top-level `HTTPRoute`.
    pub path_template: Option<String>,
    /// Whether neither Ingresses nor `HTTPRoutes` are made.
    pub disable_ingress_creation: bool,
    /// Whether `HTTPRoutes` go without a timeout.
    pub disable_http_route_timeout: bool,
}

/// A Gateway by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why a host name cannot be made. The texts are those that `KServe` reports.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// The domain template cannot be rendered for this service.
    #[error("error rendering the domain template: {0}")]
    Template(#[from] TemplateError),
    /// The rendered text is not a fully qualified domain name.
    #[error("invalid domain name {}: {problem}", quote(host))]
    Invalid {
        /// The rendered text.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Why a path cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// The path template cannot be rendered for this service.
    #[error("error rendering the path template: {0}")]
    Template(#[from] TemplateError),
    /// The rendered text is not a path.
    #[error("invalid url path {}: {problem}", quote(path))]
    Invalid {
        /// The rendered text.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Ingress {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        let enable_gateway_api = fields.flag("enableGatewayApi")?;
        let gateway_text = fields.text("kserveIngressGateway")?.unwrap_or_default();
        // Without the Gateway API the field has no effect, so a strange one does no harm.
        let gateway = if enable_gateway_api {
            Some(read_gateway(fields, gateway_text)?)
        } else {
            None
        };
        let domain_template = fields.text_or("domainTemplate", "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}")?;
        template::check(&domain_template, Flavour::Text).map_err(|cause| {
            fields.error(
                "domainTemplate",
                &format!("invalid ingress config, unable to parse domainTemplate: {cause}"),
                "correct the template",
            )
        })?;
        let path_template = fields.some_text("pathTemplate")?;
        if let Some(path_template) = &path_template {
            template::check(path_template, Flavour::Text).map_err(|cause| {
                fields.error(
                    "pathTemplate",
                    &format!("invalid ingress config, unable to parse pathTemplate: {cause}"),
                    "correct the template",
                )
            })?;
            if fields.some_text("ingressDomain")?.is_none() {
                return Err(fields.error(
                    "ingressDomain",
                    "invalid ingress config - ingressDomain is required if pathTemplate is given",
                    "set it, or remove pathTemplate",
                ));
            }
        }
        Ok(Self {
            enable_gateway_api,
            gateway,
            ingress_domain: fields.text_or("ingressDomain", "example.com")?,
            domain_template,
            url_scheme: fields.text_or("urlScheme", "http")?,
            ingress_class_name: fields.some_text("ingressClassName")?,
            additional_ingress_domains: fields.texts("additionalIngressDomains")?,
            path_template,
            disable_ingress_creation: fields.flag("disableIngressCreation")?,
            disable_http_route_timeout: fields.flag("disableHTTPRouteTimeout")?,
        })
    }

    /// Whether the domain makes every service reachable from inside the cluster only.
    #[must_use]
    pub fn is_internal_domain(&self) -> bool {
        self.ingress_domain == INTERNAL_DOMAIN
    }

    /// Whether a text can be the host name of a route.
    #[must_use]
    pub fn is_host(text: &str) -> bool {
        fully_qualified(text).is_ok()
    }

    /// The host name of an object of a service.
    ///
    /// `name` is the object's own name (the service's, or a component's); labels and annotations are the service's.
    ///
    /// # Errors
    ///
    /// A [`HostError`], whose text names the host, if the template fails or its result is not a fully qualified
    /// domain name.
    pub fn host(
        &self,
        name: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Result<String, HostError> {
        let context = json!({
            "Name": name,
            "Namespace": namespace,
            "IngressDomain": self.ingress_domain,
            "Labels": labels,
            "Annotations": annotations,
        });
        let host = template::render(&self.domain_template, &context, Flavour::Text)?;
        match fully_qualified(&host) {
            Ok(()) => Ok(host),
            Err(problem) => Err(HostError::Invalid { host, problem }),
        }
    }

    /// The path of a service on the shared domain, or nothing without a path template.
    ///
    /// # Errors
    ///
    /// A [`PathError`], whose text names the path, if the template fails or its result is not an absolute path.
    pub fn path(&self, name: &str, namespace: &str) -> Result<Option<String>, PathError> {
        let Some(path_template) = &self.path_template else {
            return Ok(None);
        };
        let context = json!({"Name": name, "Namespace": namespace});
        let rendered = template::render(path_template, &context, Flavour::Text)?;
        match decoded_path(&rendered) {
            Ok(path) => Ok(Some(path.strip_suffix('/').unwrap_or(&path).to_owned())),
            Err(problem) => Err(PathError::Invalid {
                path: rendered,
                problem,
            }),
        }
    }
}

fn read_gateway(fields: &Fields<'_>, text: &str) -> Result<GatewayRef, SettingsError> {
    let error = |problem: &str| {
        Err(fields.error(
            "kserveIngressGateway",
            &format!("invalid ingress config - {problem}"),
            "set it to <namespace>/<name> of the Gateway, or enableGatewayApi to false",
        ))
    };
    if text.is_empty() {
        return error("kserveIngressGateway is required");
    }
    let Some((namespace, name)) = text.split_once('/').filter(|(_, name)| !name.contains('/')) else {
        return error("kserveIngressGateway should be in the format <namespace>/<name>");
    };
    if !is_label(name) {
        return error("kserveIngressGateway gateway name is invalid");
    }
    if !is_label(namespace) {
        return error("kserveIngressGateway gateway namespace is invalid");
    }
    Ok(GatewayRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Whether a text is an RFC 1123 label.
fn is_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && LABEL.is_match(text)
}

/// Checks for a fully qualified domain name: an RFC 1123 subdomain of two labels at least, a final dot allowed.
///
/// Error texts are those of the API server's field validation, which `KServe` passes on.
fn fully_qualified(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("url: Required value".to_owned());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let invalid = |value: &str, detail: &str| Err(format!("url: Invalid value: {}: {detail}", quote(value)));
    let mut problems = Vec::new();
    if name.len() > SUBDOMAIN_MAX {
        problems.push(format!("must be no more than {SUBDOMAIN_MAX} characters"));
    }
    if !SUBDOMAIN.is_match(name) {
        problems.push(format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '{SUBDOMAIN_PATTERN}')"
        ));
    }
    if !problems.is_empty() {
        return invalid(name, &problems.join(","));
    }
    if !name.contains('.') {
        return invalid(name, "should be a domain with at least two segments separated by dots");
    }
    // The labels of a subdomain can be wrong in their length only.
    match name.split('.').find(|label| label.len() > LABEL_MAX) {
        Some(label) => invalid(label, &format!("must be no more than {LABEL_MAX} characters")),
        None => Ok(()),
    }
}

/// The decoded path of an absolute request path; a query is cut off.
fn decoded_path(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err("contains a control character");
    }
    if !text.starts_with('/') {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        return Err(match scheme {
            Some(scheme) if is_scheme(scheme) => "contains a scheme",
            _ => "must start with /",
        });
    }
    let path = text.split_once('?').map_or(text, |(path, _)| path);
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            bytes
                .next()
                .and_then(|b| char::from(b).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push(high * 16 + low),
            _ => return Err("contains a % that is not followed by two hexadecimal digits"),
        }
    }
    String::from_utf8(decoded).map_err(|_| "is not UTF-8 once decoded")
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}
