//! The store for audio files: whether its bucket can be listed, written and removed from.

use super::report::Report;
use crate::{server, settings::Settings, streaming::ask_bucket};

pub(super) async fn examine(settings: &Settings, report: &mut Report) {
    let Some(config) = server::bucket(settings) else { return };
    let mut group = report.group("bucket");
    let shown = format!("{} at {}", config.name, config.endpoint);
    match ask_bucket(&config).await {
        Ok(()) => group.ok(format!("{shown} can be listed, written and removed from")),
        Err(error) => {
            let fix = "is the store running, do bucket.access_key and bucket.secret_key hold and may they list, read, write \
                       and delete, are bucket.name, bucket.region and bucket.virtual_host right?";
            group.fail(format!("{shown}: {error}"), fix);
        }
    }
}
