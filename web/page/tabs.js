// Tabs as the ARIA practices have them: one stop for Tab, arrow keys between them, Home and End.

/**
 * @param {HTMLElement} list the element with role=tablist
 * @param {(name: string) => void} onChange called with the tab's name: "chat" of `tab-chat`
 */
export function tabs(list, onChange) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const name = (tab) => tab.id.replace("tab-", "");

  const select = (wanted, focus) => {
    const tab = all.find((each) => name(each) === wanted) ?? all[0];
    for (const each of all) {
      const selected = each === tab;
      each.setAttribute("aria-selected", String(selected));
      each.tabIndex = selected ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !selected;
    }
    if (focus) tab.focus();
    history.replaceState(null, "", name(tab) === "chat" ? location.pathname + location.search : `#${name(tab)}`);
    onChange(name(tab));
  };

  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(name(tab), false);
  });
  list.addEventListener("keydown", (event) => {
    const at = all.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    select(name(all[(to + all.length) % all.length]), true);
  });
  addEventListener("hashchange", () => select(location.hash.slice(1), false));
  select(location.hash.slice(1), false);
  return { select };
}
