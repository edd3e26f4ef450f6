//! Signature Version 4 of AWS for S3, of requests whose body is at hand.

use std::fmt;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign as hmac};
use bytes::Bytes;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, InvalidHeaderValue};

use crate::bets::audit::{Digest, Hex, Timestamp};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names the secret.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
    /// Goes with credentials that end.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Signs a request, whose URL is absolute and encoded: its host, its query, its body and all headers that it has by now.
///
/// # Errors
/// The credentials have characters that no header can have.
pub fn sign(
    request: &mut Request<Bytes>,
    credentials: &Credentials,
    region: &str,
    now: Timestamp,
) -> Result<(), InvalidHeaderValue> {
    let time = basic_time(now);
    let hash = Digest::of(request.body()).to_string();
    let host = request.uri().authority().map_or("", |authority| authority.as_str()).to_owned();
    let headers = request.headers_mut();
    headers.insert("x-amz-date", HeaderValue::from_str(&time)?);
    headers.insert("x-amz-content-sha256", HeaderValue::from_str(&hash)?);
    if let Some(token) = &credentials.session_token {
        let mut token = HeaderValue::from_str(token)?;
        token.set_sensitive(true);
        headers.insert("x-amz-security-token", token);
    }
    headers.insert(HOST, HeaderValue::from_str(&host)?);

    let mut signed: Vec<(&str, &[u8])> =
        request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes().trim_ascii())).collect();
    signed.sort_unstable();
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");

    let uri = request.uri();
    let mut canonical =
        format!("{}\n{}\n{}\n", request.method(), uri.path(), canonical_query(uri.query())).into_bytes();
    for (name, value) in signed {
        canonical.extend_from_slice(name.as_bytes());
        canonical.push(b':');
        canonical.extend_from_slice(value);
        canonical.push(b'\n');
    }
    canonical.extend_from_slice(format!("\n{names}\n{hash}").as_bytes());

    let day = &time[..8];
    let scope = format!("{day}/{region}/s3/aws4_request");
    let to_sign = format!("{ALGORITHM}\n{time}\n{scope}\n{}", Digest::of(&canonical));
    let secret = format!("AWS4{}", credentials.secret_access_key);
    let key = [day, region, "s3", "aws4_request"]
        .iter()
        .fold(secret.into_bytes(), |key, part| mac(&key, part.as_bytes()).as_ref().to_vec());
    let mut signature = Digest::ZERO;
    signature.0.copy_from_slice(mac(&key, to_sign.as_bytes()).as_ref());
    let id = &credentials.access_key_id;
    let authorization = format!("{ALGORITHM} Credential={id}/{scope},SignedHeaders={names},Signature={signature}");
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&authorization)?);
    Ok(())
}

fn mac(key: &[u8], data: &[u8]) -> Tag {
    hmac(&Key::new(HMAC_SHA256, key), data)
}

/// By name, and each with its `=`.
fn canonical_query(query: Option<&str>) -> String {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(&str, &str)> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Everything but the unreserved characters of RFC 3986 §2.3 as `%XX`.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push('%');
            encoded.push_str(&Hex([byte]).to_string().to_ascii_uppercase());
        }
    }
    encoded
}

/// `20260921T100007Z`
fn basic_time(time: Timestamp) -> String {
    extended_time(time).replace(['-', ':'], "")
}

/// `2026-09-21T10:00:07Z`
pub(super) fn extended_time(time: Timestamp) -> String {
    let text = time.to_string();
    let (date, time) = text.split_once(' ').unwrap_or_default();
    format!("{date}T{}Z", time.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::*;

    /// 2013-05-24T00:00:00Z, and the keys of AWS's published examples.
    const TIME: Timestamp = Timestamp(1_369_353_600_000_000);

    fn example() -> Credentials {
        Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        }
    }

    fn signed(method: Method, target: &str, headers: &[(&'static str, &str)], body: &'static [u8]) -> Request<Bytes> {
        let mut request =
            Request::builder().method(method).uri(format!("https://examplebucket.s3.amazonaws.com{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Bytes::from_static(body)).unwrap();
        sign(&mut request, &example(), "us-east-1", TIME).unwrap();
        request
    }

    fn signature(request: &Request<Bytes>) -> String {
        request.headers()[AUTHORIZATION].to_str().unwrap().rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn the_published_examples_come_out() {
        let get = signed(Method::GET, "/test.txt", &[("range", "bytes=0-9")], b"");
        assert_eq!(signature(&get), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
        let headers = [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        let put = signed(Method::PUT, "/test%24file.text", &headers, b"Welcome to Amazon S3.");
        assert_eq!(signature(&put), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
        let lifecycle = signed(Method::GET, "/?lifecycle", &[], b"");
        assert_eq!(signature(&lifecycle), "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
        for query in ["max-keys=2&prefix=J", "prefix=J&max-keys=2"] {
            let list = signed(Method::GET, &format!("/?{query}"), &[], b"");
            assert_eq!(signature(&list), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
        }
    }

    #[test]
    fn a_session_token_is_signed_and_nothing_secret_is_shown() {
        let mut request = Request::get("https://b.s3.eu-central-1.amazonaws.com/?versions").body(Bytes::new()).unwrap();
        let credentials = Credentials { session_token: Some("passing".to_owned()), ..example() };
        sign(&mut request, &credentials, "eu-central-1", TIME).unwrap();
        let authorization = request.headers()[AUTHORIZATION].to_str().unwrap();
        let names = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
        assert!(authorization.contains(names), "{authorization}");
        assert!(authorization.contains("/20130524/eu-central-1/s3/aws4_request,"), "{authorization}");
        let shown = format!("{credentials:?}{request:?}");
        assert!(!shown.contains("passing") && !shown.contains("bPxRfi"), "{shown}");
        let broken = Credentials { access_key_id: "a\nb".to_owned(), ..example() };
        assert!(sign(&mut request, &broken, "eu-central-1", TIME).is_err());
    }

    #[test]
    fn texts_are_encoded_and_times_shown_as_aws_has_them() {
        assert_eq!(encode("p/edge-1_a.b~ä&="), "p%2Fedge-1_a.b~%C3%A4%26%3D");
        assert_eq!((basic_time(TIME), extended_time(TIME)), ("20130524T000000Z".into(), "2013-05-24T00:00:00Z".into()));
        assert_eq!(canonical_query(Some("versions&a=1")), "a=1&versions=");
    }
}
