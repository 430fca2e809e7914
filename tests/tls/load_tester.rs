//! The load tester against a server with TLS: believed is what it was told to believe.

use std::{
    fs,
    process::{Command, Output},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use crate::{
    YEAR,
    authority::Authority,
    support::{process::tool, server::TestServer},
};

async fn voice(server: &TestServer, arguments: &[&str]) -> Output {
    voice_at(&server.url(), arguments).await
}

async fn voice_at(url: &str, arguments: &[&str]) -> Output {
    let mut voice = Command::new(tool("antiphon-loadtest"));
    voice.args(["voice", "--server", url, "--clients", "2", "--speakers", "1", "--duration", "1"]);
    // However busy the machine is.
    voice.args(["--lateness-max-ms", "60000"]).args(arguments);
    tokio::task::spawn_blocking(move || voice.output().expect("the tool runs")).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_or_the_servers_own_certificate_or_none_is_asked_for() {
    let authority = Authority::new();
    authority.issue(YEAR);
    let signed = TestServer::start(|settings| authority.set(settings)).await;
    let ca = authority.ca_file().display().to_string();
    assert!(voice(&signed, &["--ca", &ca]).await.status.success());

    // As `openssl req -x509` makes one: an authority, which may not be a server's own where it signs for others.
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    fs::write(authority.certificate_file(), params.self_signed(&key).expect("signed").pem()).expect("our folder");
    fs::write(authority.key_file(), key.serialize_pem()).expect("our folder");
    let own = TestServer::start(|settings| authority.set(settings)).await;
    let certificate = authority.certificate_file().display().to_string();
    assert!(voice(&own, &["--ca", &certificate]).await.status.success());
    assert!(voice(&own, &["--insecure"]).await.status.success());
    for arguments in [&["--ca", ca.as_str()][..], &[]] {
        let refused = voice(&own, arguments).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("certificate"), "{said}");
        assert!(said.contains("--ca FILE") && said.contains("--insecure"), "what to do: {said}");
        assert!(!said.contains("rustls_platform_verifier"), "in words for people: {said}");
    }
    signed.stop().await;
    own.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_scheme_or_process_is_named() {
    let authority = Authority::new();
    authority.issue(YEAR);
    let secured = TestServer::start(|settings| authority.set(settings)).await;
    let plain = TestServer::start(|_| {}).await;
    let as_accounts = ["--accounts", "somebody", "--password", "a long enough password"];
    for (url, wanted) in [
        (secured.url().replacen("https", "http", 1), ["speaks TLS", "https://"]),
        (plain.url().replacen("http", "https", 1), ["speaks no TLS", "an http:// URL"]),
    ] {
        // By the gateway first, or by the API.
        for arguments in [&[][..], &as_accounts] {
            let refused = voice_at(&url, arguments).await;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && wanted.iter().all(|word| said.contains(word)), "{url}: {said}");
        }
    }
    // Above the highest number that Linux gives.
    let refused = voice(&plain, &["--pid", "4194305"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--pid 4194305: no such process"), "{said}");
    secured.stop().await;
    plain.stop().await;
}
