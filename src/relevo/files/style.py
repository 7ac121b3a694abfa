"""The look of the pages: one style sheet for light and dark, and the drawings used as icons."""

CSS = """
:root{color-scheme:light dark;--bg:#f7f7f5;--card:#fff;--ink:#1d2430;--soft:#5b6472;--line:#e2e3df;--hover:#f0f3f8;
--link:#0b57a4;--main:#0b57a4;--main-ink:#fff;--folder:#b7791f;--danger:#b3261e;--ok:#e5f3e8;--ok-ink:#14532d;
--risk:#fff1d6;--risk-ink:#7a4100}
@media (prefers-color-scheme:dark){:root{--bg:#14171c;--card:#1c2027;--ink:#e6e9ee;--soft:#9aa5b4;--line:#2f3540;
--hover:#252b34;--link:#8ab8f0;--main:#2f6fb7;--main-ink:#fff;--folder:#e0b15c;--danger:#f28b82;--ok:#17351f;
--ok-ink:#b5e3c0;--risk:#42300f;--risk-ink:#f5d08a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1.25rem 1rem 3rem;background:var(--bg);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:3px}
header{display:flex;justify-content:space-between;align-items:baseline;gap:1rem;margin-bottom:1rem}
header p{margin:0;font-size:.9rem}
.crumbs{display:flex;flex-wrap:wrap;list-style:none;margin:0;padding:0;font-size:1.25rem;font-weight:600;min-width:0}
.crumbs li{overflow-wrap:anywhere}
.crumbs li+li::before{content:"/";color:var(--soft);font-weight:400;padding:0 .45rem}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.icon{width:1.15em;height:1.15em;flex:none;fill:none;stroke:currentColor;stroke-width:1.7;stroke-linecap:round;
stroke-linejoin:round}
.icon.folder{color:var(--folder);fill:currentColor;fill-opacity:.25}
.icon.file,.icon.back{color:var(--soft)}
.notice{margin:0 0 1rem;padding:.6rem .9rem;border-radius:.5rem;background:var(--ok);color:var(--ok-ink)}
.notice.risk{background:var(--risk);color:var(--risk-ink)}
.forms{display:flex;flex-wrap:wrap;gap:.75rem 2rem;margin-bottom:1rem;padding:.85rem 1rem;background:var(--card);
border:1px solid var(--line);border-radius:.6rem}
.forms form{flex:1 1 17rem;min-width:0}
.forms label{display:block;font-size:.85rem;color:var(--soft);margin-bottom:.3rem}
.row{display:flex;gap:.5rem;align-items:center;min-width:0}
input{flex:1;min-width:0;font:inherit;color:inherit}
::file-selector-button{margin-right:.6rem;padding:.35rem .85rem;border:1px solid var(--line);border-radius:.4rem;
background:var(--bg);color:var(--ink);font:inherit;cursor:pointer}
::file-selector-button:hover{background:var(--hover)}
input:not([type=file]){padding:.35rem .6rem;background:var(--bg);border:1px solid var(--line);border-radius:.4rem}
button,.button{display:inline-flex;align-items:center;gap:.4rem;font:inherit;white-space:nowrap;cursor:pointer;
padding:.35rem .85rem;border:1px solid var(--line);border-radius:.4rem;background:var(--bg);color:var(--ink)}
button:hover,.button:hover{background:var(--hover);text-decoration:none}
button.main{background:var(--main);border-color:var(--main);color:var(--main-ink)}
button.main:hover{filter:brightness(1.1)}
button.danger{border-color:var(--danger);color:var(--danger)}
table{width:100%;border-collapse:separate;border-spacing:0;background:var(--card);border:1px solid var(--line);
border-radius:.6rem;overflow:hidden}
th,td{text-align:left;padding:.45rem .6rem;border-bottom:1px solid var(--line);vertical-align:middle}
tbody tr:last-child td{border-bottom:0}
th{font-size:.85rem;font-weight:600}
th a{color:var(--soft)}
.arrow{padding-left:.3rem}
tbody tr:hover{background:var(--hover)}
td.name{width:100%;padding:0;overflow-wrap:anywhere}
td.name a{display:flex;gap:.6rem;align-items:center;padding:.45rem .6rem .45rem .9rem}
th.name{padding-left:.9rem}
.size,.date{white-space:nowrap;font-variant-numeric:tabular-nums}
.size{text-align:right}
td.size,td.date{color:var(--soft)}
td.act{padding:0 .6rem}
.delete{display:inline-flex;padding:.4rem;color:var(--soft)}
.delete:hover,.delete:focus-visible{color:var(--danger)}
.none{color:var(--soft);text-align:center;padding:2rem 1rem}
.foot{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:.75rem .25rem 0;font-size:.9rem;color:var(--soft)}
.box{max-width:34rem;margin:12vh auto 0;padding:1.5rem;background:var(--card);border:1px solid var(--line);
border-radius:.6rem;overflow-wrap:anywhere}
.box h1{margin:0 0 .5rem;font-size:1.35rem}
.box .code{margin:1rem 0 0;font-size:.85rem;color:var(--soft)}
@media (max-width:40rem){.date{display:none}}
@media (prefers-contrast:more){:root{--soft:var(--ink);--line:var(--ink)}}
@media print{.forms,.act,.languages{display:none}}
"""

ICONS = (
    '<svg width="0" height="0" class="hidden" aria-hidden="true">'
    '<symbol id="i-folder" viewBox="0 0 24 24"><path d="M3 6.5A1.5 1.5 0 0 1 4.5 5h4.6l2 2.5h8.4A1.5 1.5 0 0 1 21 9v9'
    'a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 18z"/></symbol>'
    '<symbol id="i-file" viewBox="0 0 24 24"><path d="M6 3h8l4.5 4.5V21H6zM14 3v4.5h4.5"/></symbol>'
    '<symbol id="i-back" viewBox="0 0 24 24"><path d="M9 10 5 6l4-4M5 6h9a5 5 0 0 1 5 5v10"/></symbol>'
    '<symbol id="i-bin" viewBox="0 0 24 24"><path d="M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5"/></symbol>'
    '<symbol id="i-up" viewBox="0 0 24 24"><path d="M12 16V4M7 9l5-5 5 5M4 16v4h16v-4"/></symbol>'
    '<symbol id="i-plus" viewBox="0 0 24 24"><path d="M12 5v14M5 12h14"/></symbol>'
    "</svg>"
)
