//! What a store answers: the few elements of its XML that are of use here.

/// A page of the versions of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Key and version: by key, and the newest of a key first.
    pub versions: Vec<(String, String)>,
    /// The last key of the page, one that has only delete markers among them.
    pub last: Option<String>,
    /// What keys have in common up to the delimiter.
    pub prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    pub next: Option<Next>,
}

/// After which version a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// `key-marker`
    pub key: String,
    /// `version-id-marker`
    pub version: Option<String>,
}

impl Listing {
    /// Reads a `ListVersionsResult`; `None` for anything else, for a part of one, for one that does not say whether and where it
    /// goes on, and for one with entries in a form that is not known.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, text) = text.split_once("<ListVersionsResult")?;
        let text = text.trim_end().strip_suffix("</ListVersionsResult>")?;
        // Comments and the like could hide an entry, and a second end would make a whole page of the first half.
        if text.contains("<!") || text.contains("</ListVersionsResult") || openings(text, "IsTruncated") != 1 {
            return None;
        }
        let next = match element(text, "IsTruncated")?.0 {
            "false" => None,
            "true" => {
                let version = element(text, "NextVersionIdMarker").map(|(id, _)| id.to_owned());
                // Empty it is refused.
                let version = version.filter(|id| !id.is_empty());
                Some(Next { key: element(text, "NextKeyMarker")?.0.to_owned(), version })
            }
            _ => return None,
        };
        let key = |entry: &str| Some(element(entry, "Key")?.0.to_owned());
        let versions =
            elements(text, "Version").map(|entry| Some((key(entry)?, element(entry, "VersionId")?.0.to_owned())));
        let versions = versions.collect::<Option<Vec<_>>>()?;
        let markers = elements(text, "DeleteMarker").map(key).collect::<Option<Vec<_>>>()?;
        let last = versions.iter().map(|(key, _)| key).chain(&markers).max().cloned();
        let prefixes = elements(text, "CommonPrefixes").map(|entry| Some(element(entry, "Prefix")?.0.to_owned()));
        let prefixes = prefixes.collect::<Option<Vec<_>>>()?;
        let read = [("Version", versions.len()), ("DeleteMarker", markers.len()), ("CommonPrefixes", prefixes.len())];
        let is_all = read.iter().all(|(name, count)| openings(text, name) == *count);
        is_all.then_some(Self { versions, last, prefixes, next })
    }
}

/// `Code` and `Message` of an error, made fit for a line of a log; empty where there is none.
pub(super) fn error_of(body: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(body);
    let fit = |name: &str| -> String {
        let said = element(&text, name).map_or("", |(said, _)| said);
        said.chars().filter(|c| !c.is_control()).take(200).collect()
    };
    (fit("Code"), fit("Message"))
}

/// The text of the first element of this name, and what follows it.
fn element<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (_, begun) = text.split_once(&format!("<{name}>"))?;
    begun.split_once(&format!("</{name}>"))
}

fn elements<'a>(mut text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    std::iter::from_fn(move || {
        let (found, rest) = element(text, name)?;
        text = rest;
        Some(found)
    })
}

/// How many elements of this name begin, in whatever form.
fn openings(text: &str, name: &str) -> usize {
    let begins = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || "-_.:".contains(next));
    text.split('<').skip(1).filter(|tag| tag.strip_prefix(name).is_some_and(begins)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_of_versions_is_read() {
        let text = "<?xml version=\"1.0\"?>\n<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <Name>b</Name><Prefix>p/</Prefix><IsTruncated>true</IsTruncated>\
                    <NextKeyMarker>p/b</NextKeyMarker><NextVersionIdMarker>2</NextVersionIdMarker>\
                    <DeleteMarker><Key>p/b</Key><VersionId>3</VersionId></DeleteMarker>\
                    <Version><Key>p/a</Key><VersionId>2</VersionId><Size>5</Size></Version>\
                    <Version><Key>p/a</Key><VersionId>null</VersionId></Version>\
                    <CommonPrefixes><Prefix>p/c/</Prefix></CommonPrefixes></ListVersionsResult>";
        let expected = Listing {
            versions: vec![("p/a".into(), "2".into()), ("p/a".into(), "null".into())],
            last: Some("p/b".into()),
            prefixes: vec!["p/c/".into()],
            next: Some(Next { key: "p/b".into(), version: Some("2".into()) }),
        };
        assert_eq!(Listing::parse(text), Some(expected));
    }

    #[test]
    fn what_does_not_say_that_it_is_all_is_no_listing() {
        let empty = "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>";
        assert_eq!(Listing::parse(empty), Some(Listing::default()));
        for broken in [
            "",
            "<html>",
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
            "<ListVersionsResult></ListVersionsResult>",
            "<ListVersionsResult><IsTruncated>perhaps</IsTruncated></ListVersionsResult>",
            "<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>",
            "<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>a</Key></Version></ListVersionsResult>",
            "<ListVersionsResult><IsTruncated>false</IsTruncated>",
            "<ListVersionsResult><IsTruncated>false</IsTruncated><IsTruncated>true</IsTruncated></ListVersionsResult>",
            "<ListVersionsResult><IsTruncated>false</IsTruncated><!-- </ListVersionsResult>",
            "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult></ListVersionsResult>",
        ] {
            assert_eq!(Listing::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn entries_in_another_form_are_not_left_out() {
        let page =
            |entry: &str| format!("<ListVersionsResult><IsTruncated>false</IsTruncated>{entry}</ListVersionsResult>");
        for (entry, is_read) in [
            ("<Version><Key>a</Key><VersionId>1</VersionId></Version>", true),
            ("<VersionIdMarker></VersionIdMarker><VersionIdMarker/>", true),
            ("<Version kind=\"x\"><Key>a</Key><VersionId>1</VersionId></Version>", false),
            ("<Version ><Key>a</Key><VersionId>1</VersionId></Version>", false),
            ("<Version><Key>a</Key><VersionId>1</VersionId></Version >", false),
            ("<Version><Version><Key>a</Key><VersionId>1</VersionId></Version></Version>", false),
            ("<Version/>", false),
            ("<DeleteMarker\n><Key>a</Key></DeleteMarker>", false),
            ("<DeleteMarker><Key>a</Key>", false),
            ("<CommonPrefixes x=\"\"><Prefix>a/</Prefix></CommonPrefixes>", false),
        ] {
            assert_eq!(Listing::parse(&page(entry)).is_some(), is_read, "{entry}");
        }
        let next = "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker>\
                    <NextVersionIdMarker></NextVersionIdMarker></ListVersionsResult>";
        assert_eq!(Listing::parse(next).unwrap().next, Some(Next { key: "a".into(), version: None }));
    }

    #[test]
    fn of_an_error_code_and_message_alone_are_told() {
        let body = b"<Error><Code>AccessDenied</Code><Message>No\n.</Message><Key>secret</Key></Error>";
        assert_eq!(error_of(body), ("AccessDenied".to_owned(), "No.".to_owned()));
        assert_eq!(error_of(b"\xff<html>"), (String::new(), String::new()));
        assert_eq!(error_of(format!("<Code>{}</Code>", "ä".repeat(500)).as_bytes()).0, "ä".repeat(200));
    }

    proptest! {
        #[test]
        fn no_page_that_was_cut_off_is_one(
            entries in prop::collection::vec("<(Version><Key>[a-c/]{1,3}</Key><VersionId>[0-9]</VersionId></Version|\
                DeleteMarker><Key>[a-c/]{1,3}</Key><VersionId>[0-9]</VersionId></DeleteMarker|\
                CommonPrefixes><Prefix>[a-c]/</Prefix></CommonPrefixes)>", 0..6),
            next in prop::option::of("[a-c]{1,2}"),
            at_the_end in any::<bool>(),
        ) {
            let is_truncated = next.is_some();
            let next = next.map(|key| format!("<NextKeyMarker>{key}</NextKeyMarker>")).unwrap_or_default();
            let says = format!("<IsTruncated>{is_truncated}</IsTruncated>{next}");
            let entries = entries.concat();
            let inner = if at_the_end { format!("{entries}{says}") } else { format!("{says}{entries}") };
            let page = format!("<?xml version=\"1.0\"?><ListVersionsResult xmlns=\"x\">{inner}</ListVersionsResult>");
            prop_assert!(Listing::parse(&page).is_some(), "{}", page);
            for end in 0..page.len() {
                prop_assert_eq!(Listing::parse(&page[..end]), None, "{}", &page[..end]);
            }
        }

        #[test]
        fn no_text_panics(text in "(<ListVersionsResult>|</?(Version|DeleteMarker|CommonPrefixes|Key|VersionId|Prefix|\
                                   IsTruncated|NextKeyMarker|Code|Message)>|true|false|[a-zä<>/&]{0,4}){0,40}") {
            let _ = (Listing::parse(&text), error_of(text.as_bytes()));
        }
    }
}
