// The interface's texts in this person's language. The page has the catalog as data, which the
// content security policy allows; a missing text stays English.
const block = document.getElementById("phrases");
const catalog = block ? JSON.parse(block.textContent) : {};

const rules = new Intl.PluralRules(document.documentElement.lang || "en");
const forms = ["zero", "one", "two", "few", "many", "other"].filter((form) =>
  rules.resolvedOptions().pluralCategories.includes(form));

const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (whole, name) => values?.[name] ?? whole);

// The catalog has a number for each text: annotation/templatetags/phrases.py computes the same.
function lookup(sentence) {
  let number = 0;
  for (let at = 0; at < sentence.length; at++) number = (number * 31 + sentence.charCodeAt(at)) % 0x1000000;
  return catalog[number.toString(16)];
}

export const gettext = (text, values) => fill(lookup(text) || text, values);

export function ngettext(singular, plural, n, values) {
  const known = lookup(singular);
  const text = Array.isArray(known) ? known[Math.min(forms.indexOf(rules.select(n)), known.length - 1)] : n === 1 ? singular : plural;
  return fill(text || plural, { n, ...values });
}
