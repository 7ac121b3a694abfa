"""What the pages' scripts say, in English and Spanish; each page fetches those of its own language."""

from __future__ import annotations

SCRIPT: dict[str, tuple[str, str]] = {
    "switching": ("Switching servers…", "Cambiando de servidor…"),
    "next": ("Next", "Siguiente"),
    "prev": ("Previous", "Anterior"),
    "select_all": ("Select all on this page", "Seleccionar todo en esta página"),
    "chosen_one": ("1 selected", "1 seleccionado"),
    "chosen_many": ("{n} selected", "{n} seleccionados"),
    "transfers": ("Transfers", "Transferencias"),
    "all_together": ("All together", "Todo junto"),
    "all_open": ("{n} to go", "faltan {n}"),
    "all_done": ("Everything is done.", "Todo terminado."),
    "close": ("Close", "Cerrar"),
    "pause": ("Pause", "Pausar"),
    "resume": ("Resume", "Reanudar"),
    "cancel": ("Cancel", "Cancelar"),
    "state_waits": ("Waiting", "En espera"),
    "state_paused": ("Paused", "En pausa"),
    "state_done": ("Done", "Terminado"),
    "state_failed": ("Failed", "Ha fallado"),
    "state_gone": ("Cancelled", "Cancelado"),
    "changed": ("The file was changed meanwhile.", "El archivo ha cambiado entretanto."),
    "conflict": ("There is already a file “{name}”.", "Ya existe un archivo «{name}»."),
    "conflict_replace": ("Replace it", "Reemplazarlo"),
    "conflict_both": ("Keep both", "Conservar ambos"),
    "conflict_skip": ("Skip", "Omitir"),
    "copied": ("The address is copied.", "La dirección se ha copiado."),
    "for_all": ("The same for all that follow", "Lo mismo para los siguientes"),
}
