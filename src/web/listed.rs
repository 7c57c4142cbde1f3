//! Resources that are no stored documents, as documents: nodes and what they serve, tokens, authorities. They are read, never
//! written.

use super::api::{Authority, NodeStatus, Resources, TokenStatus};
use super::kinds::Kind;
use super::routes::{Answer, Api, Failed};
use super::status::{all_authorities, node_status};
use super::token_routes;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The documents of a kind, all of them or those of one name.
pub(super) async fn get(api: &Api, kind: &Kind, name: Option<&str>) -> Answer<Resources> {
    let wanted = |names: &[&str]| name.is_none_or(|name| names.contains(&name));
    let nodes = || api.parts.inventory.nodes().into_iter().map(node_status);
    let documents: Vec<Value> = match kind.name {
        "node" => nodes()
            .filter(|node| wanted(&[&node.name, &node.id]))
            .map(|node| document(kind, &node.name, node_spec(&node)))
            .collect(),
        "db_server" => nodes().flat_map(|node| db_servers(kind, &node, &wanted)).collect(),
        "token" => {
            let Json(found) = token_routes::ls(State(api.clone())).await?;
            let tokens = found.tokens.into_iter();
            // The first four characters are enough to name one, as in `tokens rm`.
            tokens
                .filter(|token| wanted(&[&token.token, token.token.trim_end_matches('*')]))
                .map(|token| token_document(kind, &token))
                .collect()
        }
        _ => all_authorities(api)?
            .into_iter()
            .filter(|authority| wanted(&[&authority.status.authority]))
            .map(|authority| document(kind, &authority.status.authority, authority_spec(&authority)))
            .collect(),
    };
    if let (true, Some(name)) = (documents.is_empty(), name) {
        let why = match kind.name {
            "node" => format!("no node called {name:?} is alive"),
            other => format!("there is no {other} called {name:?}"),
        };
        return Err(Failed(StatusCode::NOT_FOUND, why));
    }
    let yaml = documents.iter().map(serde_saphyr::to_string);
    Ok(Json(Resources {
        yaml: yaml.collect::<Result<_, _>>().map_err(super::routes::bad)?,
        documents,
    }))
}

fn document(kind: &Kind, name: &str, spec: Value) -> Value {
    json!({ "kind": kind.name, "version": "v2", "metadata": { "name": name }, "spec": spec })
}

fn node_spec(node: &NodeStatus) -> Value {
    json!({
        "id": node.id, "services": node.kinds, "version": node.version, "addresses": node.addresses,
        "databases": node.databases,
    })
}

/// One for each database of each agent: what several agents serve is there several times.
fn db_servers(kind: &Kind, node: &NodeStatus, wanted: &impl Fn(&[&str]) -> bool) -> Vec<Value> {
    let served = node.databases.iter().filter(|database| wanted(&[&database.name]));
    served
        .map(|database| {
            let mut document = document(
                kind,
                &database.name,
                json!({ "uri": database.uri, "node": node.name, "node_id": node.id, "version": node.version }),
            );
            document["metadata"]["description"] = json!(database.description);
            document["metadata"]["labels"] = json!(database.labels);
            document["status"] = json!({ "health": database.health });
            document
        })
        .collect()
}

/// The name is masked: what is kept of a token is its hash.
fn token_document(kind: &Kind, token: &TokenStatus) -> Value {
    let mut document = document(
        kind,
        &token.token,
        json!({
            "roles": token.roles, "join_method": "token", "uses_left": token.uses_left, "configured": token.configured,
            "created": token.created, "created_by": token.created_by,
        }),
    );
    document["metadata"]["labels"] = json!(token.labels);
    document["metadata"]["expires"] = json!(token.expires);
    document
}

fn authority_spec(authority: &Authority) -> Value {
    json!({
        "type": authority.status.authority, "rotation": authority.status.rotation, "algorithm": authority.status.algorithm,
        "valid_until": authority.status.valid_until, "serial": authority.serial, "fingerprint": authority.fingerprint,
        "certificate": authority.certificate,
    })
}
