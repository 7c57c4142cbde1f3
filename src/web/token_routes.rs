//! The administrator's API for join tokens. A token leaves auth once, in the answer to the request that made it.

use super::api::{AddToken as Add, RemoveToken as Remove, TokenAdded, TokenRemoved, TokenStatus, TokenStatuses};
use super::routes::{ASK_DEADLINE, Answer, Api, Failed, bad, pins, surely};
use crate::actors::tokens::{AddToken, ListTokens, Listed, RemoveToken, TokenError, Uses, list};
use crate::audit::EventKind;
use crate::model::{Labels, NodeKind, Secret};
use crate::policy::{ResourceKind, Verb};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::time::Duration;

impl From<TokenError> for Failed {
    fn from(error: TokenError) -> Self {
        let status = match error {
            TokenError::Exists(_) | TokenError::Ambiguous { .. } | TokenError::Configured(_) => StatusCode::CONFLICT,
            TokenError::NotFound { .. } => StatusCode::NOT_FOUND,
            TokenError::Store(_) | TokenError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

pub(super) async fn add(State(api): State<Api>, Json(ask): Json<Add>) -> Answer<TokenAdded> {
    surely(added(api, ask)).await
}

async fn added(api: Api, ask: Add) -> Answer<TokenAdded> {
    api.permit(ResourceKind::Token, Verb::Create)?;
    let kinds = ask.roles.iter().map(|role| role.parse::<NodeKind>());
    let kinds = kinds.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let message = AddToken {
        by: api.caller.name(),
        kinds: kinds.clone(),
        ttl: Duration::from_secs(ask.ttl_secs),
        uses: ask.uses.map_or(Uses::Unlimited, Uses::Left),
        value: ask.value.map(Secret::new),
        labels: Labels(ask.labels),
    };
    let added = api.parts.add_token.ask(&api.origin(), message, ASK_DEADLINE).await??;
    let event = api
        .change(EventKind::TokenCreated, &added.name.to_string())
        .field("roles", list(&kinds))
        .field("join_method", "token")
        .field("expires", added.expires);
    api.parts.trail.write(event).await?;
    Ok(Json(TokenAdded {
        token: added.token.expose().clone(),
        roles: ask.roles,
        expires: added.expires.to_string(),
        ca_pins: pins(&api)?,
        proxy: api.proxy_address(),
    }))
}

pub(super) async fn ls(State(api): State<Api>) -> Answer<TokenStatuses> {
    api.permit(ResourceKind::Token, Verb::List)?;
    let listed = api
        .parts
        .list_tokens
        .ask(&api.origin(), ListTokens, ASK_DEADLINE)
        .await??;
    let tokens = listed.into_iter().map(status).collect();
    Ok(Json(TokenStatuses { tokens }))
}

fn status(listed: Listed) -> TokenStatus {
    let labels = |kinds: &[NodeKind]| kinds.iter().map(ToString::to_string).collect();
    match listed {
        Listed::Configured { name, kinds } => TokenStatus {
            token: name.to_string(),
            roles: labels(&kinds),
            configured: true,
            ..TokenStatus::default()
        },
        Listed::Stored(record) => TokenStatus {
            token: record.name.to_string(),
            roles: labels(&record.kinds),
            labels: record.labels.0,
            expires: Some(record.expires.to_string()),
            uses_left: match record.uses {
                Uses::Unlimited => None,
                Uses::Left(left) => Some(left),
            },
            configured: false,
            created: Some(record.created.to_string()),
            created_by: Some(record.created_by),
        },
    }
}

/// The token stands in the body: paths are what programs like to log.
pub(super) async fn remove(State(api): State<Api>, Json(ask): Json<Remove>) -> Answer<TokenRemoved> {
    surely(removed(api, ask)).await
}

async fn removed(api: Api, ask: Remove) -> Answer<TokenRemoved> {
    api.permit(ResourceKind::Token, Verb::Delete)?;
    let name = api
        .parts
        .remove_token
        .ask(&api.origin(), RemoveToken(Secret::new(ask.token)), ASK_DEADLINE)
        .await??;
    api.audit_change(EventKind::TokenDeleted, &name.to_string()).await?;
    Ok(Json(TokenRemoved {
        removed: name.to_string(),
    }))
}
