//! Where the node's credentials come from. Looked for again for each object, since they may be exchanged at any time.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, Uri};
use rustls::RootCertStore;
use serde::Deserialize;

use crate::outbound::{Client, Limits};

use super::sigv4::Credentials;

/// The agent of the node's cloud is on the node.
const LIMITS: Limits = Limits { time: Duration::from_secs(2), body: 64 << 10 };

/// Where the agent of EKS Pod Identity answers, without TLS.
const AGENTS: [&str; 2] = ["169.254.170.23", "[fd00:ec2::23]"];

/// A file in AWS's form; else variables of the environment; else the agent of a container. Instance metadata are not asked: a pod
/// on the host's network would get the rights of the whole node from them.
///
/// # Errors
/// There are none, or what there is cannot be used.
pub(super) async fn find(file: Option<&Path>, variable: &dyn Fn(&str) -> Option<String>) -> io::Result<Credentials> {
    if let Some(file) = file {
        let wrong = |kind, what: String| io::Error::new(kind, format!("{}: {what}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.kind(), error.to_string()))?;
        let what = "has no aws_access_key_id and aws_secret_access_key under [default]";
        return parse(&text).ok_or_else(|| wrong(io::ErrorKind::InvalidData, what.to_owned()));
    }
    // As AWS's own tools do: what is empty is not set.
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let (Some(access_key_id), Some(secret_access_key)) =
        (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
    {
        return Ok(Credentials { access_key_id, secret_access_key, session_token: variable("AWS_SESSION_TOKEN") });
    }
    let Some(url) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") else {
        let what = "no credentials for audit.s3: set credentials_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    };
    let token = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => Some(
            std::fs::read_to_string(&file).map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))?,
        ),
        None => None,
    };
    ask_agent(&url, token.as_deref().map(str::trim)).await
}

/// `[default]` of a credentials file of AWS.
fn parse(text: &str) -> Option<Credentials> {
    let mut is_default = false;
    let [mut id, mut secret, mut session_token] = [None, None, None];
    for line in text.lines().map(str::trim) {
        if let Some(profile) = line.strip_prefix('[') {
            is_default = profile.strip_suffix(']').is_some_and(|name| name.trim() == "default");
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_default) {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => session_token = value,
                _ => {}
            }
        }
    }
    Some(Credentials { access_key_id: id?, secret_access_key: secret?, session_token })
}

/// What an agent answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
}

async fn ask_agent(url: &str, token: Option<&str>) -> io::Result<Credentials> {
    let failed = |what: String| io::Error::other(format!("the agent for credentials, {url}: {what}"));
    let uri: Uri = url.parse().map_err(|_| failed("is no URL".to_owned()))?;
    let host = uri.host().unwrap_or_default();
    let is_loopback = host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
    let is_here = is_loopback || AGENTS.contains(&host) || ["localhost", "[::1]"].contains(&host);
    // Its answer is a secret, and the request has one.
    if uri.scheme_str() != Some("http") || !is_here {
        return Err(failed("is not an agent on this host".to_owned()));
    }
    let mut request = Request::get(uri).body(Bytes::new()).map_err(|error| failed(error.to_string()))?;
    if let Some(token) = token {
        let mut token = HeaderValue::from_str(token).map_err(|_| failed("the token is no header".to_owned()))?;
        token.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, token);
    }
    let answer = Client::new(RootCertStore::empty(), LIMITS).send(request).await;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    if answer.status() != 200 {
        return Err(failed(format!("it answers {}", answer.status())));
    }
    let Answer { access_key_id, secret_access_key, token } =
        serde_json::from_slice(answer.body()).map_err(|_| failed("its answer holds no credentials".to_owned()))?;
    Ok(Credentials { access_key_id, secret_access_key, session_token: token.filter(|token| !token.is_empty()) })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::audit::tests::Directory;

    async fn with(file: Option<&Path>, variables: &[(&str, &str)]) -> io::Result<Credentials> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        find(file, &variable).await
    }

    const BY_ENVIRONMENT: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "env"), ("AWS_SECRET_ACCESS_KEY", "s")];

    #[tokio::test]
    async fn a_file_goes_before_the_environment_and_is_read_each_time() {
        let directory = Directory::new();
        let file = directory.0.join("credentials");
        for id in ["one", "two"] {
            let text = format!(
                "[other]\naws_access_key_id=x\n# a comment\n[default]\r\naws_access_key_id = {id}\r\n\
                 aws_secret_access_key=a=b\naws_session_token = t\n[last]\naws_secret_access_key = y\n"
            );
            std::fs::write(&file, text).unwrap();
            let found = with(Some(&file), &BY_ENVIRONMENT).await.unwrap();
            assert_eq!((found.access_key_id.as_str(), found.secret_access_key.as_str()), (id, "a=b"));
            assert_eq!(found.session_token.as_deref(), Some("t"));
        }
        std::fs::write(&file, "[default]\naws_access_key_id = one\naws_secret_access_key =\n").unwrap();
        let error = with(Some(&file), &BY_ENVIRONMENT).await.unwrap_err();
        assert!(error.to_string().contains("under [default]"), "{error}");
        assert!(with(Some(&directory.0.join("none")), &BY_ENVIRONMENT).await.is_err());
        let found = with(None, &BY_ENVIRONMENT).await.unwrap();
        assert_eq!((found.access_key_id.as_str(), found.session_token), ("env", None));
        let with_token = |token: &'static str| [&BY_ENVIRONMENT[..], &[("AWS_SESSION_TOKEN", token)]].concat();
        assert_eq!(with(None, &with_token("t")).await.unwrap().session_token.as_deref(), Some("t"));
        assert_eq!(with(None, &with_token("")).await.unwrap().session_token, None);
        for empty in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            let variables = BY_ENVIRONMENT.map(|(name, value)| (name, if name == empty { "" } else { value }));
            assert_eq!(with(None, &variables).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{empty}");
        }
        assert_eq!(with(None, &[]).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[tokio::test]
    async fn the_agent_of_a_pod_is_asked_with_its_token() {
        let directory = Directory::new();
        let file = directory.0.join("token");
        std::fs::write(&file, "of-the-pod\n").unwrap();
        for token in ["t", ""] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/v1/credentials", listener.local_addr().unwrap());
            let agent = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                let body =
                    r#"{"AccessKeyId":"i","SecretAccessKey":"s","Token":"TOKEN","Expiration":"2026-09-21T10:00:00Z"}"#;
                let body = body.replace("TOKEN", token);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8(asked).unwrap()
            });
            let variables = [
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap()),
            ];
            let found = with(None, &variables).await.unwrap();
            assert_eq!(
                (found.access_key_id.as_str(), found.session_token.as_deref()),
                ("i", Some(token).filter(|token| !token.is_empty()))
            );
            let asked = agent.await.unwrap();
            assert!(
                asked.starts_with("GET /v1/credentials") && asked.contains("authorization: of-the-pod\r\n"),
                "{asked}"
            );
        }
        for elsewhere in ["http://192.0.2.1/", "https://127.0.0.1/", "http://127.example.com.evil/", "nothing"] {
            let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", elsewhere)];
            let error = with(None, &variables).await.unwrap_err().to_string();
            assert!(error.contains("not an agent on this host") || error.contains("no URL"), "{elsewhere}: {error}");
        }
    }
}
