// The interface's words in this person's language. The catalogue comes with the page as data, so that
// the content security policy stays as strict as it is; what it lacks stays English.
const block = document.getElementById("phrases");
const catalogue = block ? JSON.parse(block.textContent) : {};

const rules = new Intl.PluralRules(document.documentElement.lang || "en");
const forms = ["zero", "one", "two", "few", "many", "other"].filter((form) =>
  rules.resolvedOptions().pluralCategories.includes(form));

const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (whole, name) => values?.[name] ?? whole);

export const gettext = (text, values) => fill(catalogue[text] || text, values);

export function ngettext(one, many, n, values) {
  const found = catalogue[one];
  const text = Array.isArray(found) ? found[Math.min(forms.indexOf(rules.select(n)), found.length - 1)] : n === 1 ? one : many;
  return fill(text || many, { n, ...values });
}
