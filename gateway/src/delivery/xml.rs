//! XML as messages for the public have it: elements of text or of elements, in an order that is fixed.
//!
//! [`parse`] reads what [`write`] has written and no more; [`parse_foreign`] reads what a peer has written, in whatever order, and
//! takes no document type from it either. Nothing here knows which elements a message has.

use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader as XmlReader, Writer};

/// Elements within one another: more than any message has.
const DEEPEST: usize = 8;

/// An element: of text or of elements, never of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub text: String,
    pub children: Vec<Node>,
}

pub fn leaf(name: &str, text: &str) -> Node {
    Node { name: name.to_owned(), text: text.to_owned(), children: Vec::new() }
}

pub fn branch(name: &str, children: Vec<Node>) -> Node {
    Node { name: name.to_owned(), text: String::new(), children }
}

impl Node {
    /// The first element of this name below it.
    pub fn find(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|node| node.name == name)
    }
}

/// The elements below one, taken from the front in the order of the schema.
pub struct Children {
    of: String,
    left: std::iter::Peekable<std::vec::IntoIter<Node>>,
}

impl Children {
    pub fn of(node: Node) -> Self {
        Self { of: node.name, left: node.children.into_iter().peekable() }
    }

    /// The same of a message that must be called so.
    pub fn below(root: Node, name: &str) -> Result<Self, String> {
        if root.name == name { Ok(Self::of(root)) } else { Err(format!("there is no {name}")) }
    }

    pub fn maybe(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.left.next_if(|node| node.name == name) {
            Some(node) if node.children.is_empty() => Ok(Some(node.text)),
            Some(_) => Err(format!("{name} in {} holds elements", self.of)),
            None => Ok(None),
        }
    }

    pub fn one(&mut self, name: &str) -> Result<String, String> {
        self.maybe(name)?.ok_or_else(|| format!("{name} is missing in {} or not in its place", self.of))
    }

    pub fn many(&mut self, name: &str) -> Result<Vec<String>, String> {
        std::iter::from_fn(|| self.maybe(name).transpose()).collect()
    }

    pub fn branches<T>(&mut self, name: &str, take: impl Fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut found = Vec::new();
        while let Some(node) = self.left.next_if(|node| node.name == name) {
            let mut children = Self::of(node);
            found.push(take(&mut children)?);
            children.end()?;
        }
        Ok(found)
    }

    /// The same where there may be one at most.
    pub fn branch<T>(
        &mut self,
        name: &str,
        take: impl Fn(&mut Self) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let mut found = self.branches(name, take)?;
        match found.len() {
            0 | 1 => Ok(found.pop()),
            more => Err(format!("{more} {name} in {}", self.of)),
        }
    }

    pub fn end(&mut self) -> Result<(), String> {
        match self.left.next() {
            Some(node) => Err(format!("{} in {} is not known or not in its place", node.name, self.of)),
            None => Ok(()),
        }
    }
}

/// Indented; the namespace is the one attribute that the root may have.
pub fn write(root: &Node, namespace: Option<&str>) -> String {
    fn put(writer: &mut Writer<Vec<u8>>, node: &Node, namespace: Option<&str>) -> std::io::Result<()> {
        let mut start = BytesStart::new(node.name.as_str());
        if let Some(namespace) = namespace {
            start.push_attribute(("xmlns", namespace));
        }
        writer.write_event(Event::Start(start))?;
        if node.children.is_empty() {
            writer.write_event(Event::Text(BytesText::new(&node.text)))?;
        }
        for child in &node.children {
            put(writer, child, None)?;
        }
        writer.write_event(Event::End(BytesEnd::new(node.name.as_str())))
    }
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    let declared = writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    // Writing into memory cannot fail.
    declared.and_then(|()| put(&mut writer, root, namespace)).expect("a Vec takes all bytes");
    let mut bytes = writer.into_inner();
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("names and text are UTF-8")
}

/// Reads what we write and no more: the namespace, elements of text or of elements, no document type, no entities of
/// its own, no processing instructions, comments or foreign attributes.
pub fn parse(xml: &str, namespace: Option<&str>) -> Result<Node, String> {
    read(xml, Some(namespace))
}

/// Reads what a peer writes: elements whatever their prefixes and attributes, no document type, no entities of its own.
pub fn parse_foreign(xml: &str) -> Result<Node, String> {
    read(xml, None)
}

/// `ours`: it is held to what we write, with this namespace.
fn read(xml: &str, ours: Option<Option<&str>>) -> Result<Node, String> {
    let mut reader = XmlReader::from_str(xml);
    let mut open: Vec<Node> = Vec::new();
    let mut root = None;
    loop {
        let event =
            reader.read_event().map_err(|error| format!("not XML at byte {}: {error}", reader.error_position()))?;
        match event {
            Event::Decl(_) if open.is_empty() && root.is_none() => {}
            Event::Start(start) if root.is_none() => {
                let node = opened(&start, open.len(), ours)?;
                open.push(node);
            }
            Event::Empty(start) if root.is_none() && ours.is_none() => {
                let node = opened(&start, open.len(), ours)?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(node),
                    None => root = Some(node),
                }
            }
            Event::Text(text) => match open.last_mut() {
                Some(node) => node.text.push_str(&text.xml10_content()),
                None if text.xml10_content().trim().is_empty() => {}
                None => return Err("text outside the message".to_owned()),
            },
            Event::CData(text) if ours.is_none() => match open.last_mut() {
                Some(node) => node.text.push_str(&text.xml10_content()),
                None => return Err("text outside the message".to_owned()),
            },
            Event::Comment(_) | Event::PI(_) if ours.is_none() => {}
            Event::GeneralRef(reference) => {
                let node = open.last_mut().ok_or("an entity outside the message")?;
                let letter = reference.resolve_char_ref().map_err(|error| format!("a broken reference: {error}"))?;
                match letter {
                    Some(letter) => node.text.push(letter),
                    None => {
                        let name = reference.xml10_content();
                        node.text.push_str(resolve_xml_entity(&name).ok_or_else(|| format!("the entity {name:?}"))?);
                    }
                }
            }
            Event::End(_) => {
                let mut node = open.pop().ok_or("an end without a beginning")?;
                if !node.children.is_empty() {
                    if !node.text.trim().is_empty() {
                        return Err(format!("text between the elements of {}", node.name));
                    }
                    node.text.clear();
                }
                match open.last_mut() {
                    Some(parent) => parent.children.push(node),
                    None => root = Some(node),
                }
            }
            Event::Eof if open.is_empty() => break,
            other => return Err(format!("{other:?}, which no message of ours holds")),
        }
    }
    root.ok_or_else(|| "there is no message".to_owned())
}

fn opened(start: &BytesStart<'_>, depth: usize, ours: Option<Option<&str>>) -> Result<Node, String> {
    if depth >= DEEPEST {
        return Err("too deep for a message".to_owned());
    }
    let Some(namespace) = ours else { return Ok(leaf(start.local_name().into_inner(), "")) };
    let attributes: Vec<String> = start
        .attributes()
        .map(|found| match found {
            Ok(found) => Ok(format!("{}={}", found.key.into_inner(), found.value)),
            Err(error) => Err(format!("a broken attribute: {error}")),
        })
        .collect::<Result<_, _>>()?;
    let wanted: Vec<String> =
        namespace.filter(|_| depth == 0).map(|namespace| format!("xmlns={namespace}")).into_iter().collect();
    if attributes != wanted {
        return Err(format!("attributes {attributes:?} where {wanted:?} belong"));
    }
    Ok(leaf(start.name().into_inner(), ""))
}
