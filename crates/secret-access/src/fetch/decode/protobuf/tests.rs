use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{Format, count, event, is_not_found_status, metadata as metadata_of, secret as secret_of};
use super::*;
use crate::secret_ref::SecretRef;
use crate::snapshot::{LAST_APPLIED, ResourceVersion, SecretSnapshot, SnapshotBuilder};
use crate::want::Want;

/// A message being written.
#[derive(Default, Clone)]
pub(in crate::fetch) struct Writer(pub(in crate::fetch) Vec<u8>);

impl Writer {
    fn base128(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).expect("seven bits"));
    }

    pub(in crate::fetch) fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.base128(field << 3 | 2);
        self.base128(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    pub(in crate::fetch) fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub(in crate::fetch) fn number(mut self, field: u64, number: u64) -> Self {
        self.base128(field << 3);
        self.base128(number);
        self
    }

    pub(in crate::fetch) fn entry(self, field: u64, key: &str, value: &[u8]) -> Self {
        let entry = Writer::default().text(1, key).bytes(2, value);
        self.bytes(field, &entry.0)
    }

    pub(in crate::fetch) fn enveloped(self, api_version: &str, kind: &str) -> Vec<u8> {
        let type_meta = Writer::default().text(1, api_version).text(2, kind);
        let unknown = Writer::default()
            .bytes(1, &type_meta.0)
            .bytes(2, &self.0)
            .text(3, "")
            .text(4, "");
        [&MAGIC[..], &unknown.0].concat()
    }
}

/// `ObjectMeta` with fields before, between and after those that are read.
pub(in crate::fetch) fn metadata_of_secret(name: &str, version: &str) -> Writer {
    let mut writer = Writer::default()
        .text(1, name)
        .text(2, "generated-")
        .text(3, "ns")
        .text(5, "u-1")
        .text(6, version)
        .number(7, 3)
        .entry(11, "label", b"value")
        .entry(12, LAST_APPLIED, b"{\"data\":\"planted\"}")
        .entry(12, "b", b"2")
        .entry(12, "a", b"1")
        .bytes(17, b"managed");
    // A fixed 64-bit and a fixed 32-bit number in fields that do not exist yet.
    writer.0.extend([200 << 1 & 0x7f | 0x80 | 1, 12]);
    writer.0.extend([7; 8]);
    writer.0.extend([31 << 3 & 0x7f | 0x80 | 5, 1]);
    writer.0.extend([7; 4]);
    writer
}

pub(in crate::fetch) fn secret_message(name: &str, version: &str) -> Writer {
    Writer::default()
        .bytes(1, &metadata_of_secret(name, version).0)
        .entry(2, "tls.key", b"secret")
        .bytes(2, &Writer::default().text(1, "empty").0)
        .text(3, "kubernetes.io/tls")
        .number(5, 1)
}

fn asked() -> SecretRef {
    SecretRef::new("ns", "name").expect("valid")
}

fn decode(body: &[u8]) -> Result<SecretSnapshot, &'static str> {
    secret_of(body, &asked(), &Fields::default()).map(SnapshotBuilder::build)
}

#[test]
fn a_whole_secret() {
    let snapshot = decode(&secret_message("name", "42").enveloped("v1", "Secret")).expect("valid");
    assert_eq!(snapshot.uid(), "u-1");
    assert_eq!(snapshot.resource_version(), ResourceVersion::new(42));
    assert_eq!(snapshot.type_(), "kubernetes.io/tls");
    assert_eq!(snapshot.annotations().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
    assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["empty", "tls.key"]);
    let bytes = |key| snapshot.bytes(key).map(SecretBytes::as_slice);
    assert_eq!(
        (bytes("tls.key"), bytes("empty")),
        (Some(&b"secret"[..]), Some(&b""[..]))
    );
    assert_eq!(
        snapshot.bytes("tls.key").map(SecretBytes::capacity),
        Some(6),
        "exactly enough"
    );
}

#[test]
fn only_wanted_fields_are_copied() {
    let body = secret_message("name", "42").enveloped("v1", "Secret");
    let want = Want::default()
        .keys(["empty", "missing"])
        .annotations(["b", LAST_APPLIED]);
    let snapshot = secret_of(&body, &asked(), want.fields()).expect("valid").build();
    assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["empty"]);
    assert_eq!(snapshot.annotations().collect::<Vec<_>>(), [("b", "2")]);
}

#[test]
fn what_is_not_the_secret_asked_for_is_refused() {
    for body in [
        secret_message("other", "42").enveloped("v1", "Secret"),
        secret_message("name", "").enveloped("v1", "Secret"),
        secret_message("name", "4x").enveloped("v1", "Secret"),
        secret_message("name", "42").enveloped("v2", "Secret"),
        secret_message("name", "42").enveloped("v1", "ConfigMap"),
        Writer::default().text(4, "NotFound").enveloped("v1", "Status"),
        Writer::default().text(3, "Opaque").enveloped("v1", "Secret"),
        // A number where a message is expected, and a text where a map is.
        Writer::default().number(1, 7).enveloped("v1", "Secret"),
        secret_message("name", "42").number(2, 7).enveloped("v1", "Secret"),
        secret_message("name", "42").0,
        b"{}".to_vec(),
        Vec::new(),
    ] {
        decode(&body).map(|_| ()).expect_err("not the Secret asked for");
    }
    let zipped = Writer::default()
        .bytes(2, &secret_message("name", "42").0)
        .text(3, "gzip");
    assert!(decode(&[&MAGIC[..], &zipped.0].concat()).is_err());
}

#[test]
fn a_type_that_is_empty_is_opaque_and_broken_text_is_replaced() {
    let message = Writer::default()
        .bytes(1, &metadata_of_secret("name", "42").entry(12, "odd", b"\xff").0)
        .text(3, "");
    let snapshot = decode(&message.enveloped("v1", "Secret")).expect("valid");
    assert_eq!(snapshot.type_(), "Opaque");
    assert_eq!(snapshot.annotation("odd"), Some("\u{fffd}"));
}

#[test]
fn metadata_status_and_counts() {
    let body = Writer::default()
        .bytes(1, &metadata_of_secret("name", "42").0)
        .enveloped("meta.k8s.io/v1", "PartialObjectMetadata");
    let metadata = metadata_of(&body, &asked()).expect("valid");
    assert_eq!(
        (metadata.uid.as_ref(), metadata.version),
        ("u-1", ResourceVersion::new(42))
    );
    assert!(decode(&body).is_err());

    let status = |reason| {
        Writer::default()
            .text(2, "Failure")
            .text(4, reason)
            .number(6, 404)
            .enveloped("v1", "Status")
    };
    assert!(is_not_found_status(&status("NotFound")));
    assert!(!is_not_found_status(&status("Forbidden")));
    assert!(!is_not_found_status(&body));

    let list = |metadata: Writer, items: usize| {
        let mut list = Writer::default().bytes(1, &metadata.0);
        for _ in 0..items {
            list = list.bytes(2, b"");
        }
        count(&list.enveloped("meta.k8s.io/v1", "PartialObjectMetadataList"))
    };
    let metadata = || Writer::default().text(1, "").text(2, "7");
    assert_eq!(list(metadata().text(3, ""), 0), Ok(0));
    assert_eq!(list(metadata().text(3, ""), 1), Ok(1));
    assert_eq!(list(metadata().text(3, "x").number(4, 7999), 1), Ok(8000));
    assert!(list(metadata().text(3, "x"), 1).is_err());
    assert!(count(&status("x")).is_err());
}

#[test]
fn truncated_anywhere_is_an_error_or_the_same_secret() {
    let whole = secret_message("name", "42").enveloped("v1", "Secret");
    // The last two fields of the envelope are empty; without them it says the same.
    for end in 0..whole.len() - 4 {
        decode(&whole[..end]).map(|_| ()).expect_err("not whole");
    }
    assert!(decode(&whole[..whole.len() - 4]).is_ok());
}

#[test]
fn the_beginning_is_enough_to_know_which_secret_it_is() {
    let message = secret_message("name", "42");
    let metadata = metadata_of_secret("name", "42").0.len();
    for end in metadata + 2..message.0.len() {
        let event = event::item(
            Format::Protobuf,
            event::Piece::Beginning(&message.0[..end]),
            &Fields::default(),
        );
        match event {
            Ok(event::Event::Unusable { secret, version, .. }) => {
                assert_eq!((secret, version), (asked(), Some(ResourceVersion::new(42))));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn numbers_end() {
    for bytes in [
        &[0x80; 10][..],
        &[0xff; 11],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
    ] {
        let mut message = Message {
            rest: bytes,
            cut: false,
        };
        assert_eq!(message.number(), Err(NOT_PROTOBUF));
    }
    let mut message = Message {
        rest: &[0x80],
        cut: false,
    };
    assert_eq!(message.number(), Err(TOO_SHORT));
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let mut message = Message {
        rest: &most,
        cut: false,
    };
    assert_eq!(message.number(), Ok(u64::MAX));
    for tag in [0x0b, 0x0c, 0x0e, 0x0f, 0x00, 0x02] {
        let mut message = Message {
            rest: &[tag, 0, 0],
            cut: false,
        };
        assert!(message.next().is_err(), "{tag:#x}");
    }
}

proptest! {
    #[test]
    fn data_round_trip(
        data in prop::collection::btree_map("[-._a-zA-Z0-9]{1,20}", prop::collection::vec(any::<u8>(), 0..400), 0..8),
        version: u64,
    ) {
        let mut message = Writer::default().bytes(1, &metadata_of_secret("name", &version.to_string()).0);
        for (key, value) in &data {
            message = message.entry(2, key, value);
        }
        let snapshot = decode(&message.enveloped("v1", "Secret")).expect("valid");
        let decoded: BTreeMap<String, Vec<u8>> = snapshot
            .keys()
            .map(|key| (key.to_owned(), snapshot.bytes(key).expect("a key it names").as_slice().to_vec()))
            .collect();
        prop_assert_eq!(decoded, data);
        prop_assert_eq!(snapshot.resource_version(), ResourceVersion::new(version));
    }

    /// One byte changed somewhere: an error, or a Secret that claims to be the one asked for; never a panic.
    #[test]
    fn flipped_bytes_never_panic(at in any::<prop::sample::Index>(), byte: u8) {
        let mut body = secret_message("name", "42").enveloped("v1", "Secret");
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(snapshot) = decode(&body) {
            prop_assert_eq!(snapshot.secret(), &asked());
        }
    }
}
