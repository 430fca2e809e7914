//! Ways outside: whether the mail server takes connections, and whether what is said there leads back.

use super::report::Report;
use crate::{notify::ask_mail_server, settings::Settings};

pub(super) async fn examine(settings: &Settings, report: &mut Report) {
    let notify = &settings.notify;
    let Some((url, from)) = notify.smtp_url.as_ref().zip(notify.smtp_from.as_deref()) else { return };
    let mut group = report.group("mail");
    match ask_mail_server(url, from).await {
        Ok(()) => group.ok(format!("{url} takes connections")),
        Err(error) => {
            let fix =
                "is it running, do notify.smtp_url's name and password hold, does a firewall let this machine out?";
            group.fail(format!("{url}: {error}"), fix);
        }
    }
    if notify.public_url.is_none() {
        group.warn("mails have no link to the page", "set notify.public_url to the URL by which people reach it");
    }
}
