//! What a store answers when it is asked for versions of objects: whatever it is, a page that says that it is the last is one.

use tableside::audit::s3::Listing;

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(Listing { versions, last, prefixes, next }) = Listing::parse(&text) else { return };
    assert!(text.contains("<ListVersionsResult") && text.contains("</IsTruncated>"));
    assert!(next.is_none() || text.contains("<IsTruncated>true<"));
    assert!(next.is_some() || text.contains("<IsTruncated>false<"));
    for (key, _) in &versions {
        assert!(last.as_ref().is_some_and(|last| last >= key), "{key} is after {last:?}");
    }
    // No part of it passes for all of it.
    let whole = text.trim_end();
    for (end, _) in whole.char_indices() {
        assert!(Listing::parse(&whole[..end]).is_none(), "{} is a page", &whole[..end]);
    }
    // Each stands in the text, once at least.
    let told = versions.len() + prefixes.len();
    assert!(told <= text.matches("<Version>").count() + text.matches("<CommonPrefixes>").count());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let page = |rest: &str| {
        format!(
            "<?xml version=\"1.0\"?>\n<ListVersionsResult xmlns=\"x\"><Name>b</Name><Prefix>p/</Prefix>{rest}</ListVersionsResult>"
        )
    };
    let version = "<Version><Key>p/a</Key><VersionId>null</VersionId><IsLatest>true</IsLatest></Version>";
    let marker = "<DeleteMarker><Key>p/b</Key><VersionId>2</VersionId></DeleteMarker>";
    [
        page("<IsTruncated>false</IsTruncated>"),
        page(&format!("<IsTruncated>false</IsTruncated>{version}{version}{marker}")),
        page(&format!(
            "<IsTruncated>true</IsTruncated><NextKeyMarker>p/a</NextKeyMarker><NextVersionIdMarker>2</NextVersionIdMarker>\
             {marker}{version}"
        )),
        page("<IsTruncated>false</IsTruncated><CommonPrefixes><Prefix>p/c/</Prefix></CommonPrefixes>"),
        page("<IsTruncated>true</IsTruncated>"),
        "<Error><Code>NoSuchBucket</Code><Message>There is none.</Message></Error>".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}
