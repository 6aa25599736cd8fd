use super::*;

const DAY: i64 = 24 * 3600;
const NOW: i64 = 1_800_000_000;

fn plan(hosts: &[&str]) -> Plan {
    Plan {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        authority: Duration::from_secs(365 * 24 * 3600),
        certificate: Duration::from_secs(90 * 24 * 3600),
        settle: Duration::from_secs(600),
    }
}

/// As another replica would read it.
fn reread(certificates: &Certificates) -> Certificates {
    let data = certificates.data();
    let value = |key: &str| std::str::from_utf8(&data.get(key)?.0).ok();
    Certificates::parse(value).expect("what was written can be read")
}

fn authorities(certificates: &Certificates) -> usize {
    certificates.bundle().matches("BEGIN CERTIFICATE").count()
}

/// Whether what is served is of an authority that is trusted, and both are valid.
fn is_trusted(certificates: &Certificates, bundle: &str, now: i64) -> bool {
    let Some(trusted) = Made::several(bundle) else {
        return false;
    };
    let certificate = &certificates.certificate;
    let by = |authority: &Made| authority.subject == certificate.issuer && !authority.is_over(now);
    trusted.iter().any(by) && !certificate.is_over(now) && certificate.at - SKEW <= now
}

#[test]
fn the_first_certificate_is_for_its_names_and_stays_until_two_thirds_are_over() {
    let plan = plan(&["leanserve-webhook.leanserve-system.svc", "127.0.0.1"]);
    let made = Certificates::first(&plan, NOW).expect("made");
    let mut certificates = reread(&made);
    assert_eq!(certificates.certificate.hosts, plan.hosts);
    assert_eq!(certificates.bundle(), made.bundle());
    assert!(is_trusted(&certificates, &made.bundle(), NOW));
    assert_eq!(certificates.rest(&plan, NOW), Duration::from_secs(60 * 24 * 3600));
    for later in [0, 1, 600, 59 * DAY] {
        assert_eq!(certificates.advance(&plan, NOW + later), Ok(false), "after {later} s");
    }
    assert_eq!(certificates.advance(&plan, NOW + 60 * DAY), Ok(true));
    assert_eq!(authorities(&certificates), 1, "the authority lasts longer");
    assert_eq!(certificates.certificate.end, NOW + 150 * DAY);
}

#[test]
fn a_new_authority_is_trusted_before_it_is_used_and_the_old_one_as_long_as_it_is_served() {
    let plan = plan(&["a.example"]);
    let mut certificates = Certificates::first(&plan, NOW).expect("made");
    // Two replicas that look every quarter of the time that steps may take: what each serves, and what API servers trust,
    // which may be as old as the last step but one.
    let (mut now, mut kept) = (NOW, Vec::new());
    let mut most = 0;
    while now < NOW + 3 * 365 * DAY {
        let advanced = certificates.advance(&plan, now).expect("made");
        certificates = reread(&certificates);
        if advanced {
            kept.push((now, certificates.bundle()));
        }
        most = most.max(authorities(&certificates));
        // All bundles that an API server may still have.
        let settled = now - 600;
        let last = kept.iter().rposition(|(at, _)| *at <= settled).unwrap_or_default();
        for (at, bundle) in &kept[last.min(kept.len())..] {
            assert!(
                is_trusted(&certificates, bundle, now),
                "at {now}, with what was trusted at {at}"
            );
        }
        now += 600.max(
            i64::try_from(certificates.rest(&plan, now).as_secs())
                .expect("short")
                .min(30 * DAY),
        );
    }
    assert_eq!(most, 2, "an old authority and a new one");
    assert_eq!(authorities(&certificates), 1, "the old ones are gone");
    assert!(kept.len() > 10, "{} steps", kept.len());
}

#[test]
fn what_nobody_can_trust_is_replaced_at_once() {
    let plan = plan(&["a.example"]);
    let mut certificates = Certificates::first(&plan, NOW).expect("made");
    let late = NOW + 400 * DAY;
    assert_eq!(certificates.advance(&plan, late), Ok(true));
    assert!(is_trusted(&certificates, &certificates.bundle(), late));
}

#[test]
fn replicas_with_other_names_do_not_take_turns() {
    let (one, other) = (plan(&["a.example"]), plan(&["b.example"]));
    let mut certificates = Certificates::first(&one, NOW).expect("made");
    assert_eq!(certificates.advance(&other, NOW + 1), Ok(true));
    assert_eq!(certificates.certificate.hosts, ["a.example", "b.example"]);
    for plan in [&one, &other] {
        assert_eq!(certificates.advance(plan, NOW + 2), Ok(false));
    }
}

#[test]
fn what_does_not_belong_together_is_not_used() {
    let plan = plan(&["a.example"]);
    let (one, other) = (
        Certificates::first(&plan, NOW).expect("made").data(),
        Certificates::first(&plan, NOW).expect("made").data(),
    );
    let text = |data: &ByteString| String::from_utf8(data.0.clone()).expect("PEM is text");
    for key in [AUTHORITIES, AUTHORITY_KEY, CERTIFICATE, KEY] {
        let mut mixed: BTreeMap<_, _> = one.iter().map(|(key, value)| (*key, text(value))).collect();
        let read =
            |mixed: &BTreeMap<&str, String>| Certificates::parse(|key| mixed.get(key).map(String::as_str)).is_some();
        assert!(read(&mixed));
        if key != AUTHORITIES {
            mixed.insert(key, text(&other[key]));
            assert!(!read(&mixed), "{key} of another");
        }
        mixed.insert(key, "planted".to_owned());
        assert!(!read(&mixed), "{key} that is no PEM");
        mixed.remove(key);
        assert!(!read(&mixed), "without {key}");
    }
}

#[test]
fn hosts_are_names_and_addresses() {
    for good in ["a", "a.b.svc", "127.0.0.1", "::1"] {
        assert!(is_host(good), "{good}");
    }
    for bad in ["", "a b", "a/b", "é"] {
        assert!(!is_host(bad), "{bad}");
    }
}
