//! Certificates of our own: a small authority, and one certificate that every replica serves. Pure but for the randomness of
//! keys: told the time.
//!
//! A new authority is trusted beside the old one for a while before anything is made with it, and the old one goes only when
//! nobody serves anything of it any more. How far a rotation has come is told by the certificates themselves, so that any
//! replica can go on with it.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::ByteString;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate, time::ASN1Time};
use zeroize::Zeroizing;

/// Clocks differ: a certificate is valid from so long before it was made.
const SKEW: i64 = 300;

/// Keys of the Secret: as in Secrets of type `kubernetes.io/tls`, and the authority's.
const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The most authorities that are read. There are two at a time, or three where one was made too early.
const MOST_AUTHORITIES: usize = 8;

/// How certificates are made, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// DNS names and IP addresses.
    pub(crate) hosts: Vec<String>,
    pub(crate) authority: Duration,
    pub(crate) certificate: Duration,
    /// How long everybody may take to see a step.
    pub(crate) settle: Duration,
}

/// A certificate and what matters of it.
#[derive(Clone, PartialEq, Eq)]
struct Made {
    pem: String,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    /// In seconds since 1970.
    at: i64,
    /// In seconds since 1970.
    end: i64,
    hosts: Vec<String>,
    public_key: Vec<u8>,
}

/// The authorities that are trusted, and the certificate.
pub(super) struct Certificates {
    /// The last one makes certificates.
    authorities: Vec<Made>,
    authority_key: Zeroizing<String>,
    certificate: Made,
    key: Zeroizing<String>,
}

impl Made {
    fn of(pem: String, parsed: &X509Certificate<'_>) -> Self {
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names
            .map(|names| names.value.general_names.as_slice())
            .unwrap_or_default();
        Self {
            pem,
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            at: parsed.validity().not_before.timestamp() + SKEW,
            end: parsed.validity().not_after.timestamp(),
            hosts: names.iter().filter_map(host).collect(),
            public_key: parsed.public_key().raw.to_vec(),
        }
    }

    fn from_pem(pem: &str) -> Option<Self> {
        Self::several(pem)?.into_iter().next()
    }

    fn several(pem: &str) -> Option<Vec<Self>> {
        let mut made = Vec::new();
        for part in pem::parse_many(pem).ok()?.iter().take(MOST_AUTHORITIES) {
            let (_, parsed) = parse_x509_certificate(part.contents()).ok()?;
            made.push(Self::of(to_pem(part.contents()), &parsed));
        }
        Some(made).filter(|made| !made.is_empty())
    }

    fn age(&self, now: i64) -> i64 {
        now - self.at
    }

    fn is_over(&self, now: i64) -> bool {
        now >= self.end
    }

    /// Two thirds of its life are over.
    fn is_old(&self, now: i64) -> bool {
        self.age(now) * 3 >= (self.end - self.at) * 2
    }

    fn old_at(&self) -> i64 {
        self.at + (self.end - self.at) * 2 / 3
    }
}

fn to_pem(der: &[u8]) -> String {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der), lines)
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(std::net::Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

impl Certificates {
    /// Reads what is kept; none where there is nothing, or nothing that can be used.
    pub(super) fn parse<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let authorities = Made::several(value(AUTHORITIES)?)?;
        let certificate = Made::from_pem(value(CERTIFICATE)?)?;
        let (authority_key, key) = (value(AUTHORITY_KEY)?, value(KEY)?);
        let fits = |key: &str, made: &Made| {
            let key = KeyPair::from_pem(key).ok()?;
            (key.subject_public_key_info() == made.public_key).then_some(())
        };
        fits(authority_key, authorities.last()?)?;
        fits(key, &certificate)?;
        Some(Self {
            authorities,
            authority_key: Zeroizing::new(authority_key.to_owned()),
            certificate,
            key: Zeroizing::new(key.to_owned()),
        })
    }

    /// What is kept.
    pub(super) fn data(&self) -> BTreeMap<&'static str, ByteString> {
        let text = |text: &str| ByteString(text.as_bytes().to_vec());
        [
            (AUTHORITIES, text(&self.bundle())),
            (AUTHORITY_KEY, text(&self.authority_key)),
            (CERTIFICATE, text(&self.certificate.pem)),
            (KEY, text(&self.key)),
        ]
        .into()
    }

    /// All authorities that are trusted, as PEM.
    pub(super) fn bundle(&self) -> String {
        self.authorities
            .iter()
            .map(|authority| authority.pem.as_str())
            .collect()
    }

    /// The certificate and its key, as PEM.
    pub(super) fn served(&self) -> (&str, &str) {
        (&self.certificate.pem, &self.key)
    }

    /// A first authority and a certificate of it.
    pub(super) fn first(plan: &Plan, now: i64) -> Result<Self, rcgen::Error> {
        let (authority, authority_key) = make_authority(plan, now)?;
        let (certificate, key) = make_certificate(plan, &plan.hosts, &authority, &authority_key, now)?;
        Ok(Self {
            authorities: vec![authority],
            authority_key,
            certificate,
            key,
        })
    }

    /// Takes the steps that are due now. Returns whether there were any.
    pub(super) fn advance(&mut self, plan: &Plan, now: i64) -> Result<bool, rcgen::Error> {
        let settle = seconds(plan.settle);
        let mut advanced = false;
        if self.newest().is_old(now) {
            let (authority, key) = make_authority(plan, now)?;
            self.authorities.push(authority);
            self.authority_key = key;
            advanced = true;
        }
        if let Some(hosts) = self.hosts_of_another(plan, settle, now) {
            let maker = self.newest().clone();
            let (certificate, key) = make_certificate(plan, &hosts, &maker, &self.authority_key, now)?;
            (self.certificate, self.key) = (certificate, key);
            advanced = true;
        }
        let maker = &self.newest().subject;
        let nobody_serves_older = self.certificate.issuer == *maker && self.certificate.age(now) >= settle;
        if self.authorities.len() > 1 && nobody_serves_older {
            self.authorities.drain(..self.authorities.len() - 1);
            advanced = true;
        }
        Ok(advanced)
    }

    /// How long nothing is due.
    pub(super) fn rest(&self, plan: &Plan, now: i64) -> Duration {
        let settle = seconds(plan.settle);
        let mut due = vec![self.newest().old_at(), self.certificate.old_at()];
        if self.authorities.len() > 1 {
            due.extend(
                [self.newest().at + settle, self.certificate.at + settle]
                    .into_iter()
                    .filter(|at| *at > now),
            );
        }
        let first = due.into_iter().min().unwrap_or(now);
        Duration::from_secs(u64::try_from(first - now).unwrap_or_default())
    }

    /// The names of the certificate that should take the place of this one, if one should.
    fn hosts_of_another(&self, plan: &Plan, settle: i64, now: i64) -> Option<Vec<String>> {
        let maker = self.newest();
        // Nobody trusts it any more, so that there is nothing to wait for.
        let is_useless = self.certificate.is_over(now) || {
            let of_this = |authority: &&Made| authority.subject == self.certificate.issuer;
            self.authorities
                .iter()
                .find(of_this)
                .is_none_or(|authority| authority.is_over(now))
        };
        if !is_useless && maker.age(now) < settle && self.authorities.len() > 1 {
            return None;
        }
        if is_useless || self.certificate.issuer != maker.subject || self.certificate.is_old(now) {
            return Some(plan.hosts.clone());
        }
        let missing: Vec<_> = plan
            .hosts
            .iter()
            .filter(|host| !self.certificate.hosts.contains(host))
            .collect();
        // Replicas with other names may run at the same time: what they need stays until the next one is due.
        let all = || self.certificate.hosts.iter().chain(missing.iter().copied());
        (!missing.is_empty()).then(|| all().cloned().collect())
    }

    fn newest(&self) -> &Made {
        self.authorities
            .last()
            .expect("there is at least one, or this is not made")
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn parameters(hosts: &[String], name: &str, now: i64, end: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(hosts.to_vec())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    parameters.distinguished_name = subject;
    let time = |seconds: i64| {
        let time = ASN1Time::from_timestamp(seconds).map_err(|_| rcgen::Error::Time)?;
        Ok::<_, rcgen::Error>(time.to_datetime())
    };
    parameters.not_before = time(now - SKEW)?;
    parameters.not_after = time(end)?;
    Ok(parameters)
}

fn make_authority(plan: &Plan, now: i64) -> Result<(Made, Zeroizing<String>), rcgen::Error> {
    // Authorities are told apart by their names.
    let name = format!("leanserve-webhook-ca-{now}-{:08x}", fastrand::u32(..));
    let mut parameters = parameters(&[], &name, now, now + seconds(plan.authority))?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let made = parameters.self_signed(&key)?;
    Ok((read(&made)?, Zeroizing::new(key.serialize_pem())))
}

fn make_certificate(
    plan: &Plan,
    hosts: &[String],
    authority: &Made,
    authority_key: &str,
    now: i64,
) -> Result<(Made, Zeroizing<String>), rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.pem, KeyPair::from_pem(authority_key)?)?;
    // Nothing outlives what made it.
    let end = (now + seconds(plan.certificate)).min(authority.end);
    let mut parameters = parameters(hosts, "leanserve-webhook", now, end)?;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let made = parameters.signed_by(&key, &issuer)?;
    Ok((read(&made)?, Zeroizing::new(key.serialize_pem())))
}

fn read(made: &rcgen::Certificate) -> Result<Made, rcgen::Error> {
    let (_, parsed) = parse_x509_certificate(made.der()).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    Ok(Made::of(to_pem(made.der()), &parsed))
}

/// Whether a name can be one of a certificate.
pub(super) fn is_host(name: &str) -> bool {
    let parameters = CertificateParams::new(vec![name.to_owned()]);
    parameters.is_ok_and(|parameters| match parameters.subject_alt_names.first() {
        Some(SanType::IpAddress(_)) => true,
        Some(SanType::DnsName(name)) => {
            let name = name.as_str();
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            !name.is_empty() && name.len() <= 253 && name.bytes().all(inner)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests;
