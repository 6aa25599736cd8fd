//! What is typed on the command line or set in the environment.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are the help texts, which show in terminals as they are"
)]

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Serves KServe InferenceServices in Standard mode.
#[derive(Debug, Parser)]
#[command(name = "leanserve", version, about, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the operator until it is told to stop
    Run(Box<RunArgs>),
    /// Run the webhook that checks what InferenceServices refer to, until it is told to stop
    Webhook(Box<WebhookArgs>),
    /// Find InferenceServices that already break a policy, without changing anything, until it is told to stop
    Audit(AuditArgs),
    /// Print what InferenceServices in files become, without a cluster
    Render(RenderArgs),
    /// Print the CustomResourceDefinitions the operator works with, as YAML
    Crd(CrdArgs),
    /// Print the version
    Version,
}

/// Flags of every role: of all that runs until it is told to stop. A flag wins over its environment variable.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommonArgs {
    /// Where metrics are served; "0" turns them off
    #[arg(
        long,
        env = "LEANSERVE_METRICS_BIND_ADDRESS",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS"
    )]
    pub(crate) metrics_bind_address: String,

    /// Where /livez and /readyz are served; "0" turns them off
    #[arg(
        long,
        env = "LEANSERVE_HEALTH_PROBE_BIND_ADDRESS",
        default_value = "0.0.0.0:8081",
        value_name = "ADDRESS"
    )]
    pub(crate) health_probe_bind_address: String,

    /// Kubeconfig file to use; otherwise KUBECONFIG, ~/.kube/config or the Pod's own account
    #[arg(long, env = "LEANSERVE_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Namespace of the operator and its ConfigMap leanserve-config; otherwise POD_NAMESPACE, else leanserve-system
    #[arg(long, env = "LEANSERVE_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,

    /// The most time one request to the API server may take
    #[arg(
        long,
        env = "LEANSERVE_REQUEST_TIMEOUT",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub(crate) request_timeout: String,

    /// Format of log lines
    #[arg(long, env = "LEANSERVE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,

    /// What is logged: off, error, warn, info, debug or trace, also by module, as in info,leanserve=debug
    #[arg(long, env = "LEANSERVE_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub(crate) log_level: String,
}

/// Flags of `leanserve run`. A flag wins over its environment variable.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Namespace of KServe: of the ConfigMap inferenceservice-config and of the Lease of KServe's controller
    #[arg(
        long,
        env = "LEANSERVE_PLATFORM_NAMESPACE",
        default_value = "kserve",
        value_name = "NAMESPACE"
    )]
    pub(crate) platform_namespace: String,

    /// Namespaces to serve, separated by commas; none means all
    #[arg(
        long,
        env = "LEANSERVE_WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACES"
    )]
    pub(crate) watch_namespaces: Vec<String>,

    /// Labels of the InferenceServices to serve, as kubectl get -l takes them, such as team=a,tier!=test; none means all
    #[arg(
        long,
        env = "LEANSERVE_INFERENCE_SERVICE_SELECTOR",
        default_value = "",
        value_name = "SELECTOR"
    )]
    pub(crate) inference_service_selector: String,

    /// DNS domain of the cluster; otherwise CLUSTER_DOMAIN, else cluster.local
    #[arg(long, env = "LEANSERVE_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,

    /// How many InferenceServices are reconciled at a time; by default 8, or fewer where the memory limit is low
    #[arg(long, env = "LEANSERVE_MAX_CONCURRENT_RECONCILES", value_name = "NUMBER")]
    pub(crate) max_concurrent_reconciles: Option<usize>,

    /// How often every InferenceService is looked at without cause, such as 30s or 10h
    #[arg(
        long,
        env = "LEANSERVE_RESYNC_PERIOD",
        default_value = "10h",
        value_name = "DURATION"
    )]
    pub(crate) resync_period: String,

    /// Work only while holding the Lease leanserve-controller, so that several replicas can run; the others stand by
    #[arg(
        long,
        env = "LEANSERVE_LEADER_ELECT",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOLEAN"
    )]
    pub(crate) leader_elect: bool,

    /// Put InferencePolicies in force, which the API server then evaluates; asks for rights and CRDs of its own
    #[arg(
        long,
        env = "LEANSERVE_POLICIES",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOLEAN"
    )]
    pub(crate) policies: bool,

    /// How long the Lease is left to a holder that does not renew it; whole seconds
    #[arg(
        long,
        env = "LEANSERVE_LEADER_ELECT_LEASE_DURATION",
        default_value = "15s",
        value_name = "DURATION"
    )]
    pub(crate) leader_elect_lease_duration: String,

    /// How long a holder that cannot renew the Lease goes on writing
    #[arg(
        long,
        env = "LEANSERVE_LEADER_ELECT_RENEW_DEADLINE",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub(crate) leader_elect_renew_deadline: String,

    /// How often the Lease is renewed, or looked at by those that stand by
    #[arg(
        long,
        env = "LEANSERVE_LEADER_ELECT_RETRY_PERIOD",
        default_value = "2s",
        value_name = "DURATION"
    )]
    pub(crate) leader_elect_retry_period: String,
}

/// Flags of `leanserve audit`. A flag wins over its environment variable.
#[derive(Clone, Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// How often all InferenceServices are checked; they also are when a policy has changed
    #[arg(long, env = "LEANSERVE_INTERVAL", default_value = "6h", value_name = "DURATION")]
    pub(crate) interval: String,

    /// Check once and end: with 0 if every InferenceService was evaluated and every result written, else with 1
    #[arg(
        long,
        env = "LEANSERVE_ONCE",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOLEAN"
    )]
    pub(crate) once: bool,

    /// Most requests a second to the API server; one request checks one InferenceService
    #[arg(long, env = "LEANSERVE_QPS", default_value_t = 20, value_name = "NUMBER")]
    pub(crate) qps: u32,

    /// How many names are listed at a time
    #[arg(long, env = "LEANSERVE_PAGE_SIZE", default_value_t = 100, value_name = "NUMBER")]
    pub(crate) page_size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Flags of `leanserve webhook`. A flag wins over its environment variable.
#[derive(Clone, Debug, Args)]
pub(crate) struct WebhookArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Where reviews are served, by HTTPS
    #[arg(
        long,
        env = "LEANSERVE_WEBHOOK_BIND_ADDRESS",
        default_value = "0.0.0.0:9443",
        value_name = "ADDRESS"
    )]
    pub(crate) webhook_bind_address: String,

    /// What becomes of a service that refers to something missing: allowed with a warning, or refused
    #[arg(
        long,
        env = "LEANSERVE_ENFORCEMENT_ACTION",
        default_value = "warn",
        value_name = "ACTION"
    )]
    pub(crate) enforcement_action: EnforcementAction,

    /// How many reviews are served at a time; by default 8 for each CPU of the limit, and at least 16
    #[arg(long, env = "LEANSERVE_MAX_SERVING_THREADS", value_name = "NUMBER")]
    pub(crate) max_serving_threads: Option<usize>,

    /// How long a review waits for its turn, before its author is told that it was not checked; never more than half of
    /// what the API server waits
    #[arg(
        long,
        env = "LEANSERVE_MAX_WAIT_DURATION",
        default_value = "25ms",
        value_name = "DURATION"
    )]
    pub(crate) max_wait_duration: String,

    /// Namespace of KServe's ConfigMap inferenceservice-config
    #[arg(
        long,
        env = "LEANSERVE_PLATFORM_NAMESPACE",
        default_value = "kserve",
        value_name = "NAMESPACE"
    )]
    pub(crate) platform_namespace: String,

    /// Directory with tls.crt and tls.key, which are read again when they change; otherwise the webhook makes its own
    #[arg(long, env = "LEANSERVE_CERT_DIR", value_name = "DIRECTORY")]
    pub(crate) cert_dir: Option<PathBuf>,

    /// File with the certificate authorities whose clients may ask; otherwise anybody who can reach the port
    #[arg(long, env = "LEANSERVE_CLIENT_CA_FILE", value_name = "FILE")]
    pub(crate) client_ca_file: Option<PathBuf>,

    /// Secret of its own namespace in which the webhook keeps the certificates it makes; it has to be there
    #[arg(
        long,
        env = "LEANSERVE_CERT_SECRET",
        default_value = "leanserve-webhook-cert",
        value_name = "NAME"
    )]
    pub(crate) cert_secret: String,

    /// ValidatingWebhookConfiguration into which the authority of these certificates is written
    #[arg(
        long,
        env = "LEANSERVE_WEBHOOK_CONFIGURATION",
        default_value = "leanserve-webhook",
        value_name = "NAME"
    )]
    pub(crate) webhook_configuration: String,

    /// Service by which the API server reaches the webhook: these certificates are for its name
    #[arg(
        long,
        env = "LEANSERVE_WEBHOOK_SERVICE",
        default_value = "leanserve-webhook",
        value_name = "NAME"
    )]
    pub(crate) webhook_service: String,

    /// Further DNS names and IP addresses these certificates are for, separated by commas
    #[arg(long, env = "LEANSERVE_WEBHOOK_HOSTS", value_delimiter = ',', value_name = "HOSTS")]
    pub(crate) webhook_hosts: Vec<String>,

    /// How long the webhook goes on after it was told to stop, until nobody sends it anything new
    #[arg(
        long,
        env = "LEANSERVE_SHUTDOWN_DELAY_DURATION",
        default_value = "5s",
        value_name = "DURATION"
    )]
    pub(crate) shutdown_delay_duration: String,

    /// How long an authority that the webhook makes is valid; another takes its place after two thirds
    #[arg(
        long,
        env = "LEANSERVE_CERT_AUTHORITY_DURATION",
        default_value = "8760h",
        value_name = "DURATION"
    )]
    pub(crate) cert_authority_duration: String,

    /// How long a certificate that the webhook makes is valid; another takes its place after two thirds
    #[arg(
        long,
        env = "LEANSERVE_CERT_DURATION",
        default_value = "2160h",
        value_name = "DURATION"
    )]
    pub(crate) cert_duration: String,

    /// How long all API servers and replicas may take to see a new authority or certificate, before the next step
    #[arg(
        long,
        env = "LEANSERVE_CERT_SETTLE_DURATION",
        default_value = "10m",
        value_name = "DURATION"
    )]
    pub(crate) cert_settle_duration: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnforcementAction {
    /// Allowed with a warning
    Warn,
    /// Refused
    Deny,
}

/// Flags of `leanserve render`.
///
/// Reads InferenceServices, ServingRuntimes, ClusterServingRuntimes, ClusterStorageContainers, ServiceAccounts, Secrets (no
/// credential is printed) and the ConfigMaps of the platform's namespace. YAML output is the objects, with the resolution as
/// a comment above them; JSON output holds both. Objects are shown as they are once all components are ready. Fails when an
/// InferenceService cannot be built.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Files to read, YAML or JSON, several documents each; "-" is standard input
    #[arg(short, long, required = true, num_args = 1.., value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,

    /// Format of the output
    #[arg(short, long, default_value = "yaml", value_name = "FORMAT")]
    pub(crate) output: OutputFormat,

    /// Namespace of objects that name none
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    pub(crate) namespace: String,

    /// Namespace of the ConfigMap inferenceservice-config
    #[arg(long, default_value = "kserve", value_name = "NAMESPACE")]
    pub(crate) platform_namespace: String,

    /// Where models are brought into Pods: in the Deployment, or by KServe's Pod webhook
    #[arg(long, default_value = "deployment", value_name = "WHERE")]
    pub(crate) storage_injection: InjectionFlag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Objects, with comments
    Yaml,
    /// One document
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InjectionFlag {
    /// In the Deployment's Pod template
    Deployment,
    /// Annotations only
    Annotations,
}

/// Flags of `leanserve crd`.
#[derive(Debug, Args)]
pub(crate) struct CrdArgs {
    /// Write one file each into this directory instead of printing them
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "check")]
    pub(crate) write: Option<PathBuf>,

    /// Fail if the files in this directory differ from what --write would write
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) check: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_a_role_has_an_environment_twin() {
        let command = Cli::command();
        for role in ["audit", "run", "webhook"] {
            let role = command.find_subcommand(role).expect("the role exists");
            for argument in role.get_arguments().filter(|argument| argument.get_id() != "help") {
                let long = argument.get_long().expect("flags have long names");
                let twin = format!("LEANSERVE_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(
                    argument.get_env().and_then(|name| name.to_str()),
                    Some(twin.as_str()),
                    "--{long}"
                );
            }
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [
            &["leanserve"][..],
            &["leanserve", "run", "--log-format", "xml"],
            &["leanserve", "run", "--max-concurrent-reconciles", "many"],
            &["leanserve", "crd", "--write", "a", "--check", "a"],
            &["leanserve", "webhook", "--enforcement-action", "shrug"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
