//! The plainest peer: hyper's own client over the same TLS, sending the GETs that the library sends. It reads each answer
//! into memory and does not look at it.

use std::{io, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::Connect},
    rt::TokioExecutor,
};
use kube::{Config, client::ConfigExt};
use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Switch, Want};
use tokio::{io::AsyncReadExt, net::TcpListener, time::timeout};

use crate::Failure;

const DEADLINE: Duration = Duration::from_secs(10);

/// The peer.
pub(super) struct Raw<C> {
    client: Client<C, String>,
    server: String,
    headers: HeaderMap,
}

/// A client of the server and identity of `config`, which must be a bearer token.
pub(super) async fn client(config: &Config) -> Result<Raw<impl Connect + Clone + Send + Sync + 'static>, Failure> {
    let mut headers = headers_of_library().await?;
    if let Some(token) = bearer_token(config)? {
        headers.insert(AUTHORIZATION, token);
    }
    Ok(Raw {
        client: Client::builder(TokioExecutor::new()).build(config.rustls_https_connector()?),
        server: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
        headers,
    })
}

impl<C: Connect + Clone + Send + Sync + 'static> Raw<C> {
    /// One GET; how many bytes the body has.
    pub(super) async fn get(&self, secret: &SecretRef) -> Result<usize, Failure> {
        let path = path(secret);
        let mut request = Request::get(format!("{}{path}", self.server))
            .body(String::new())
            .map_err(io::Error::other)?;
        request.headers_mut().clone_from(&self.headers);
        let answer = self.client.request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(io::Error::other)?;
        if status != StatusCode::OK {
            return Err(io::Error::other(format!("{path} answers {status}")).into());
        }
        Ok(body.to_bytes().len())
    }
}

fn path(secret: &SecretRef) -> String {
    format!("/api/v1/namespaces/{}/secrets/{}", secret.namespace(), secret.name())
}

/// The `Authorization` of a configuration with a token in it.
fn bearer_token(config: &Config) -> Result<Option<HeaderValue>, Failure> {
    // The token is a secret string; its own serializer shows it.
    let auth = serde_json::to_value(&config.auth_info).map_err(io::Error::other)?;
    let Some(token) = auth["token"].as_str() else {
        return Ok(None);
    };
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(io::Error::other)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// What the library's GET of a Secret carries, taken from the wire, without `Host`.
async fn headers_of_library() -> Result<HeaderMap, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let url = format!("http://{address}").parse().map_err(io::Error::other)?;
    let client = kube_secret_access::client(Config::new(url))?;
    let access = Switch::new(client, AccessOptions::for_mode(Mode::Lru)).map_err(io::Error::other)?;
    let secret = SecretRef::new("default", "any").map_err(io::Error::other)?;
    let head = async {
        let (mut stream, _) = listener.accept().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        io::Result::Ok(head)
    };
    let head = tokio::select! {
        head = timeout(DEADLINE, head) => head.map_err(io::Error::other)??,
        _ = access.read(&secret, Want::quorum()) => return Err(io::Error::other("the library's GET was not seen").into()),
    };
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    headers(&head, &format!("GET {} HTTP/1.1", path(&secret)))
}

/// The headers of a request that begins with `line`.
fn headers(head: &str, line: &str) -> Result<HeaderMap, Failure> {
    let mut lines = head.split("\r\n").take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    if first != line {
        return Err(io::Error::other(format!("the library's request is {first:?} and not {line:?}")).into());
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let name = HeaderName::try_from(name).map_err(io::Error::other)?;
        let value = HeaderValue::try_from(value.trim()).map_err(io::Error::other)?;
        headers.append(name, value);
    }
    headers.remove(HOST);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::{headers, headers_of_library};

    #[tokio::test]
    async fn the_librarys_headers_are_known() {
        let headers = headers_of_library().await.expect("they are seen");
        assert!(headers.contains_key("accept"), "{headers:?}");
        assert!(!headers.contains_key("host"), "{headers:?}");
    }

    #[test]
    fn other_requests_are_not_taken_for_it() {
        let head = "GET /a HTTP/1.1\r\nhost: h\r\naccept: x\r\n\r\n";
        let found = headers(head, "GET /a HTTP/1.1").expect("it is the one");
        assert_eq!((found.len(), found["accept"].as_bytes()), (1, &b"x"[..]));
        assert!(headers(head, "GET /b HTTP/1.1").is_err());
    }
}
