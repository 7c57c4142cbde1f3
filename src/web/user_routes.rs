//! The administrator's API for people: their documents, which rbac has, and the links by which they set a password. The token of a
//! link leaves auth once, in the answer to the request that made it.

use super::api::{AddUser, ResetUser, UpdateUser, UserInvited, UserStatus, UserStatuses, UserUpdated};
use super::routes::{ASK_DEADLINE, Answer, Api, Failed, bad, surely};
use crate::actors::accounts::{AccountError, CreateInvite, ForgetAccount, InviteKind};
use crate::actors::rbac::{PutResource, RemoveResource, ResourceRef};
use crate::model::{PersonName, RoleName, Timestamp};
use crate::policy::{Resource, ResourceKind, UserRecord, Verb};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use std::time::Duration;

impl From<AccountError> for Failed {
    fn from(error: AccountError) -> Self {
        let status = match &error {
            AccountError::NoSuchUser(_) => StatusCode::NOT_FOUND,
            AccountError::NotReady | AccountError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            error if error.is_internal() => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

pub(super) async fn add(State(api): State<Api>, Json(ask): Json<AddUser>) -> Answer<UserInvited> {
    surely(added(api, ask)).await
}

async fn added(api: Api, ask: AddUser) -> Answer<UserInvited> {
    api.permit(ResourceKind::User, Verb::Create)?;
    let person = PersonName::new(ask.name).map_err(bad)?;
    let ttl = Duration::from_secs(ask.ttl_secs);
    // Before the document is made: a user without a link would have to be reset.
    check_ttl(ttl, InviteKind::Invite)?;
    let roles = existing_roles(&api, &ask.roles)?;
    let record = UserRecord::new(person.clone(), roles, ask.traits);
    if api.snapshot()?.users.contains_key(&person) {
        return Err(exists(&person));
    }
    put(&api, record, false).await?;
    let made = invite(&api, &person, ttl, InviteKind::Invite).await;
    let (token, expires) = made.map_err(|Failed(status, why)| {
        let why = format!("the user was made, but not the link: {why}; make one: ctl users reset {person}");
        Failed(status, why)
    })?;
    Ok(Json(invited(&api, InviteKind::Invite, token, expires)))
}

fn exists(person: &PersonName) -> Failed {
    let name = person.as_str();
    let why = format!(
        "user {name:?} already exists\n\nNOTE: To update an existing local user:\n> ctl users update {name} --set-roles=ROLES\n\
         NOTE: To give an existing user a new password:\n> ctl users reset {name}"
    );
    Failed(StatusCode::CONFLICT, why)
}

fn check_ttl(ttl: Duration, kind: InviteKind) -> Result<(), Failed> {
    if ttl < Duration::from_secs(1) || ttl > kind.ttl_max() {
        return Err(AccountError::Ttl.into());
    }
    Ok(())
}

/// A role that does not exist grants nothing: a slip of the keyboard is told here and not when a session is refused.
fn existing_roles(api: &Api, names: &[String]) -> Result<Vec<RoleName>, Failed> {
    let snapshot = api.snapshot()?;
    let mut roles: Vec<RoleName> = Vec::new();
    for name in names {
        let role = RoleName::new(name.as_str()).map_err(bad)?;
        if !snapshot.roles.contains_key(&role) {
            let there: Vec<&str> = snapshot.roles.keys().map(RoleName::as_str).collect();
            return Err(bad(format!(
                "role {name:?} does not exist; the roles are: {}",
                there.join(", ")
            )));
        }
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    match roles.is_empty() {
        true => Err(bad("a user needs at least one role")),
        false => Ok(roles),
    }
}

/// Stores the document of a person, read back first: what the policy does not take is refused with its place.
async fn put(api: &Api, record: UserRecord, replace: bool) -> Result<(), Failed> {
    let name = record.name.clone();
    let resource = Resource::from_json(&Resource::User(record).to_json()).map_err(bad)?;
    let message = PutResource {
        resource,
        replace,
        by: api.caller.name(),
    };
    let put = api.parts.put.ask(&api.origin(), message, ASK_DEADLINE).await?;
    match put {
        Err(crate::actors::rbac::RbacError::Exists { .. }) => Err(exists(&name)),
        other => Ok(other.map(drop)?),
    }
}

async fn invite(
    api: &Api,
    person: &PersonName,
    ttl: Duration,
    kind: InviteKind,
) -> Result<(String, Timestamp), Failed> {
    let message = CreateInvite {
        by: api.caller.name(),
        person: person.clone(),
        ttl,
        kind,
    };
    let made = api
        .parts
        .create_invite
        .ask(&api.origin(), message, ASK_DEADLINE)
        .await??;
    Ok((made.token.expose().clone(), made.expires))
}

fn invited(api: &Api, kind: InviteKind, token: String, expires: Timestamp) -> UserInvited {
    let proxy = api.proxy_address();
    UserInvited {
        url: proxy
            .as_deref()
            .map(|proxy| format!("https://{proxy}/web/{}/{token}", kind.page())),
        path: format!("/web/{}/{token}", kind.page()),
        token,
        expires: expires.to_string(),
        proxy,
    }
}

pub(super) async fn reset(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(ask): Json<ResetUser>,
) -> Answer<UserInvited> {
    api.permit(ResourceKind::User, Verb::Update)?;
    let person = PersonName::new(name).map_err(bad)?;
    surely(async move {
        let ttl = Duration::from_secs(ask.ttl_secs);
        let (token, expires) = invite(&api, &person, ttl, InviteKind::Reset).await?;
        Ok(Json(invited(&api, InviteKind::Reset, token, expires)))
    })
    .await
}

pub(super) async fn update(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(ask): Json<UpdateUser>,
) -> Answer<UserUpdated> {
    surely(updated(api, name, ask)).await
}

async fn updated(api: Api, name: String, ask: UpdateUser) -> Answer<UserUpdated> {
    api.permit(ResourceKind::User, Verb::Update)?;
    let person = PersonName::new(name).map_err(bad)?;
    let snapshot = api.snapshot()?;
    let record = snapshot.users.get(&person).cloned();
    let mut record = record.ok_or_else(|| no_such(&person))?;
    if let Some(roles) = &ask.roles {
        record.roles = existing_roles(&api, roles)?;
    }
    for (name, values) in ask.traits {
        match values.is_empty() {
            true => record.traits.remove(&name),
            false => record.traits.insert(name, values),
        };
    }
    let updated = UserUpdated { user: status(&record) };
    put(&api, record, true).await?;
    Ok(Json(updated))
}

fn no_such(person: &PersonName) -> Failed {
    Failed(
        StatusCode::NOT_FOUND,
        format!("there is no user called {:?}", person.as_str()),
    )
}

pub(super) async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Answer<serde_json::Value> {
    api.permit(ResourceKind::User, Verb::Delete)?;
    let person = PersonName::new(name).map_err(bad)?;
    surely(async move {
        if !removed(&api, &person).await? {
            return Err(no_such(&person));
        }
        Ok(Json(serde_json::json!({ "removed": person })))
    })
    .await
}

/// Removes a document and, whether or not it was there, what the person logged in with. The document first: without it nobody
/// logs in.
pub(super) async fn removed(api: &Api, person: &PersonName) -> Result<bool, Failed> {
    let message = RemoveResource {
        resource: ResourceRef::User(person.clone()),
        by: api.caller.name(),
    };
    let was_there = api.parts.remove.ask(&api.origin(), message, ASK_DEADLINE).await?;
    let forget = ForgetAccount { person: person.clone() };
    api.parts
        .forget_account
        .ask(&api.origin(), forget, ASK_DEADLINE)
        .await??;
    Ok(was_there?)
}

pub(super) async fn ls(State(api): State<Api>) -> Answer<UserStatuses> {
    api.permit(ResourceKind::User, Verb::List)?;
    api.permit(ResourceKind::User, Verb::ReadNoSecrets)?;
    let snapshot = api.snapshot()?;
    let users = snapshot.users.values().map(status).collect();
    Ok(Json(UserStatuses { users }))
}

fn status(record: &UserRecord) -> UserStatus {
    UserStatus {
        name: record.name.to_string(),
        roles: record.roles.iter().map(ToString::to_string).collect(),
        traits: record.traits.clone(),
    }
}
