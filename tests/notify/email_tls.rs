//! Mail over TLS, by a real mail server with a certificate of the tests' own authority: what does not speak TLS, or cannot prove who
//! it is, gets nothing.

use reqwest::Method;
use serde_json::json;
use time::Duration;

use crate::{
    authority::Authority,
    path,
    support::{
        chatters::{call, register},
        process::Process,
        smtp::MailServer,
    },
};

/// A server that trusts the authority alone and sends mail by `smtp_url` is asked to confirm an address: what it answers.
async fn confirms_by(smtp_url: &str, trusted: &Authority) -> u16 {
    let ca = trusted.ca_file().display().to_string();
    let settings = [("SMTP_URL", smtp_url), ("SMTP_FROM", "voice@example.org"), ("SSL_CERT_FILE", &ca)];
    let server = Process::start(&settings).await;
    let url = server.url().http("/").to_string();
    let url = url.trim_end_matches('/');
    let token = register(url, "ada").await;
    let (status, _) =
        call(Method::PUT, &path(url, "/addresses/email"), &token, json!({"address": "ada@example.org"})).await;
    status
}

/// A mail server that shows the authority's certificate where these two options say so.
async fn mail_server(authority: &Authority, certificate: &str, key: &str) -> MailServer {
    authority.issue(Duration::days(1));
    let [certificate_file, key_file] =
        [authority.certificate_file(), authority.key_file()].map(|file| file.display().to_string());
    MailServer::start_with(&[certificate, &certificate_file, key, &key_file]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_over_tls_from_the_start_and_after_starttls() {
    let (authority, another) = (Authority::new(), Authority::new());
    for (certificate, key, scheme, query) in
        [("--smtpscert", "--smtpskey", "smtps", ""), ("--tlscert", "--tlskey", "smtp", "?tls=required")]
    {
        let mail = mail_server(&authority, certificate, key).await;
        let url = format!("{scheme}://localhost:{}{query}", mail.address.port());
        assert_eq!(confirms_by(&url, &another).await, 503, "{url}: it could be anybody");
        assert!(mail.mails().is_empty(), "{url}");
        assert_eq!(confirms_by(&url, &authority).await, 200, "{url}");
        mail.mail(|mail| mail.header("to") == "ada@example.org").await.code();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_offers_no_tls_gets_nothing_where_it_is_demanded() {
    // As one looks to us when somebody between takes its offer away.
    let (authority, mail) = (Authority::new(), MailServer::start().await);
    assert_eq!(confirms_by(&format!("{}?tls=required", mail.url()), &authority).await, 503);
    assert!(mail.mails().is_empty(), "neither the code nor the address");
    // It is TLS alone that was missing.
    assert_eq!(confirms_by(&mail.url(), &authority).await, 200);
    mail.mail(|mail| mail.header("to") == "ada@example.org").await;
}
