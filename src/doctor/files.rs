//! The data dir, and the files of TLS.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use axum::http::uri::Authority;
use rustix::fs::statvfs;
use time::OffsetDateTime;

use super::report::{Group, Report};
use crate::{
    http_client::node_client,
    settings::Settings,
    tls::{Certificate, Files},
};

/// Below this the database may run out of room before anybody looks.
const FREE_BYTES_WANTED: u64 = 1 << 30;
/// Below this it will not go on for long.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// A certificate is to be renewed before so many days are left, as the alert says.
const DAYS_LEFT_WANTED: i64 = 14;

pub(super) fn examine(settings: &Settings, report: &mut Report) {
    data_dir(settings, &mut report.group("data"));
    tls(settings, &mut report.group("tls"));
    ca_file(settings, &mut report.group("tls"));
}

fn data_dir(settings: &Settings, group: &mut Group<'_>) {
    let folder = &settings.data_dir;
    let shown = folder.display();
    let set = "name another in data_dir (ANTIPHON_DATA_DIR), or make it the node's user's own";
    let Some(place) = nearest(folder) else {
        return group.fail(format!("{shown} cannot be looked at"), set);
    };
    if !place.is_dir() {
        return group.fail(format!("{} is no folder", place.display()), set);
    }
    if let Err(error) = try_to_write(&place) {
        return group.fail(format!("{} cannot be written: {error}", place.display()), set);
    }
    match (folder.exists(), mode(&place)) {
        (false, _) => group.ok(format!("{shown} is made at the first start")),
        (true, Some(mode)) if mode & 0o077 != 0 => {
            group.warn(format!("others may look into {shown}, where the secrets are"), format!("chmod 700 {shown}"));
        }
        (true, _) => group.ok(format!("{shown} can be written, and looked into by nobody else")),
    }
    let Ok(system) = statvfs(&place) else { return };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let found = format!("{} MiB are free for {shown}", free >> 20);
    let fix = "make room, or put data_dir on another disk";
    match free {
        ..FREE_BYTES_MIN => group.fail(found, fix),
        FREE_BYTES_MIN..FREE_BYTES_WANTED => group.warn(found, fix),
        _ => group.ok(found),
    }
}

/// The folder, or the nearest one above it that is there.
fn nearest(folder: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).ok()?;
    let found = folder.ancestors().find(|folder| folder.exists())?;
    Some(found.to_owned())
}

/// Makes a file there and takes it away again: permissions do not tell of everything that may be in the way.
fn try_to_write(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".antiphon-doctor-{}", uuid::Uuid::now_v7()));
    fs::OpenOptions::new().write(true).create_new(true).open(&file)?;
    fs::remove_file(&file)
}

fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}

fn tls(settings: &Settings, group: &mut Group<'_>) {
    let Some(files) = Files::of(settings) else { return no_tls(settings, group) };
    let certificate = match Certificate::read(&files) {
        Ok(certificate) => certificate,
        Err(error) => return group.fail(error.to_string(), "docs/operations.md, TLS, says what the files must hold"),
    };
    let left = certificate.expires_at - OffsetDateTime::now_utc();
    let found =
        format!("the certificate in {} is valid for {} more days", files.certificate.display(), left.whole_days());
    let fix = "renew it; a running node reads it again by itself";
    if certificate.has_run_out() {
        group.fail(format!("the certificate in {} has run out", files.certificate.display()), fix);
    } else if left.whole_days() < DAYS_LEFT_WANTED {
        group.warn(found, fix);
    } else {
        group.ok(found);
    }
    let key = files.key.display();
    if mode(&files.key).is_some_and(|mode| mode & 0o007 != 0) {
        group.warn(format!("everybody on this machine may read {key}"), format!("chmod o= {key}"));
    }
    own_url(settings, &certificate, group);
}

/// Whether the URL of this very node leads to what it speaks, under a name that its certificate has.
fn own_url(settings: &Settings, certificate: &Certificate, group: &mut Group<'_>) {
    let Some(url) = &settings.cluster.http_url else { return };
    let unless = "unless a proxy of this node's own is there";
    let Some(rest) = url.strip_prefix("https://") else {
        return group.warn(
            format!("cluster.http_url is {url}, and the node speaks TLS"),
            format!("make it https://, {unless}"),
        );
    };
    let rest = rest.split('/').next().unwrap_or_default();
    let host = rest.parse::<Authority>().map_or_else(|_| rest.to_owned(), |authority| authority.host().to_owned());
    if certificate.is_for(&host) {
        group.ok(format!("the certificate is for {host}, as cluster.http_url has it"));
    } else {
        let found = format!("the certificate is not for {host}, by which cluster.http_url leads here");
        group.warn(found, format!("name a host that it is for, {unless}"));
    }
}

fn ca_file(settings: &Settings, group: &mut Group<'_>) {
    let Some(file) = &settings.cluster.ca_file else { return };
    match node_client(Some(file)) {
        Ok(_) => group.ok(format!("{} is what other nodes' certificates must be signed by", file.display())),
        Err(error) => group.fail(error.to_string(), "a PEM file of the authority's certificate"),
    }
}

fn no_tls(settings: &Settings, group: &mut Group<'_>) {
    if settings.server.host.is_loopback() || !settings.server.trusted_proxies.is_empty() {
        return group.ok("none of its own: HTTP is for this machine, or for a proxy");
    }
    let found = "HTTP and the gateway, with the keys of voice, are reached from elsewhere in the clear";
    group.warn(found, "set server.tls_certificate and server.tls_key, or server.trusted_proxies for a proxy with TLS");
}
