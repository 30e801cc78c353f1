//! `kintsugi token`: makes, lists and deletes the tokens by which machines join.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::auth::{bootstrap, pki};
use client::{Access, Client, Deletion, Https, Select};
use host::Host;
use model::tree::text;
use model::{Key, kinds};
use serde_json::json;

use crate::joining::PUBLIC;
use crate::place::Place;
use crate::settings::TokenAct;
use crate::{keys, storing};

/// Does what was asked for; gives the lines to print.
pub async fn run(host: &Host, act: TokenAct) -> Result<Vec<String>> {
    match act {
        TokenAct::Create { data, ttl_seconds, description } => {
            create(host, &open(&data.data_dir)?, ttl_seconds, description.as_deref()).await
        }
        TokenAct::List { data } => list(host, &open(&data.data_dir)?).await,
        TokenAct::RotateKey { data, drop_old } => rotate_key(&Place::open(&data.data_dir)?, drop_old).await,
        TokenAct::Delete { data, token } => delete(&open(&data.data_dir)?, &token).await,
    }
}

async fn rotate_key(place: &Place, drop_old: bool) -> Result<Vec<String>> {
    match place.hold() {
        Ok(_held) => drop(keys::rotate_token_key(&place.keys(), drop_old)?),
        Err(_) => {
            let path = if drop_old { api::DROP_TOKEN_KEYS } else { api::ROTATE_TOKEN_KEY };
            storing::ask(place, path).await?;
        }
    }
    Ok(vec![match drop_old {
        true => "what older keys signed is good no more".into(),
        false => "tokens are signed with a new key; let go of the older ones (--drop-old) when nobody has a token of theirs".into(),
    }])
}

fn open(dir: &std::path::Path) -> Result<Client> {
    let path = Place::open(dir)?.kubeconfig();
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let https = Https::new(&Access::from_kubeconfig(&text)?)?;
    Ok(Client::new(std::sync::Arc::new(https), "kintsugi-token"))
}

async fn create(
    host: &Host,
    client: &Client,
    seconds: u64,
    description: Option<&str>,
) -> Result<Vec<String>> {
    let (id, secret) = (host.chance().suffix(6), host.chance().suffix(16));
    let mut data = json!({
        "token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
    });
    if seconds > 0 {
        data["expiration"] = json!(model::time::seconds(host.now() + Duration::from_secs(seconds)));
    }
    if let Some(description) = description {
        data["description"] = json!(description);
    }
    let object = json!({"apiVersion": "v1", "kind": "Secret", "type": bootstrap::TYPE, "stringData": data,
        "metadata": {"name": bootstrap::secret_name(&id), "namespace": bootstrap::NAMESPACE}});
    client.create(&kinds::SECRET, bootstrap::NAMESPACE, &object).await.context("cannot keep the token")?;
    let token = format!("{id}.{secret}");
    let public = client.get(&Key::new(&kinds::CONFIG_MAP, PUBLIC.0, PUBLIC.1)).await?.tree()?;
    let access = Access::from_kubeconfig(text(&public, "data.kubeconfig").as_bytes())?;
    let pin = pki::pin(&String::from_utf8(access.authority_pem).context("the authority's certificate")?)?;
    Ok(vec![
        token.clone(),
        format!("kintsugi agent --server {} --token {token} --ca-hash {pin}", access.server),
    ])
}

async fn list(host: &Host, client: &Client) -> Result<Vec<String>> {
    let select = Select::fields(format!("type={}", bootstrap::TYPE));
    let (secrets, _) = client.list(&kinds::SECRET, bootstrap::NAMESPACE, &select).await?;
    let mut lines = vec![format!("{:8} {:22} {}", "TOKEN", "EXPIRES", "DESCRIPTION")];
    for secret in secrets {
        let secret = secret.tree()?;
        let value = |key: &str| bootstrap::value(&secret, key);
        let end = match value("expiration").as_str() {
            "" => "never".to_owned(),
            _ if bootstrap::is_expired(&secret, host.now()) => "expired".to_owned(),
            end => end.to_owned(),
        };
        lines.push(format!("{:8} {end:22} {}", value("token-id"), value("description")));
    }
    Ok(lines)
}

async fn delete(client: &Client, token: &str) -> Result<Vec<String>> {
    // A whole token, or the part that names it.
    let id = token.split('.').next().unwrap_or_default();
    if id.len() != 6 {
        bail!("{token:?} is no token: give it whole, or its first six characters");
    }
    let key = Key::new(&kinds::SECRET, bootstrap::NAMESPACE, bootstrap::secret_name(id));
    client.delete(&key, &Deletion::default()).await.with_context(|| format!("token {id} stays"))?;
    Ok(vec![format!("token {id} is deleted")])
}
