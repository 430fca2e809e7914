//! The advanced API: accounts in pages, figures of people, channels and the server, the audio configuration, and what
//! administrators do.

mod admin;
mod audio;
mod channels;
mod probes;
mod server;
mod users;

use std::sync::Arc;

use antiphon_core::gateway::UserView;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;

use super::{Api, error::ApiResult};
use crate::store::NewAudit;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .merge(users::routes())
        .merge(channels::routes())
        .merge(audio::routes())
        .merge(server::routes())
        .merge(admin::routes())
}

/// Writes down what somebody is about to do: what cannot be written down is not done.
pub(super) async fn audit(
    api: &Api,
    actor: &UserView,
    action: &'static str,
    target: Option<String>,
    detail: Value,
) -> ApiResult<()> {
    tracing::info!(by = %actor.id, action, target, "an administrator acts");
    let actor_name = actor.username.clone();
    Ok(api.store.record_audit(NewAudit { actor: actor.id, actor_name, action, target, detail }).await?)
}
