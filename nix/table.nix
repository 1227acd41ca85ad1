# Reads src/tsfc/units/units.json as src/tsfc/units/table.py does, which says how; from it come the options and the units.
{ lib }:
let
  table = builtins.fromJSON (builtins.readFile ../src/tsfc/units/units.json);

  # A type of the table: a text that matches all of its patterns. What it has to be is said by the error.
  matching =
    kind:
    lib.types.str
    // {
      name = kind.is;
      description = kind.is;
      check =
        value:
        builtins.isString value && builtins.all (pattern: builtins.match pattern value != null) kind.patterns;
    };

  typeOf =
    name:
    {
      flag = lib.types.bool;
      seconds = lib.types.ints.between 0 999999999;
      text = lib.types.str;
    }
    .${name} or (matching table.types.${name});

  mkOption =
    choice:
    let
      option = table.options.${choice.name};
    in
    lib.mkOption {
      type =
        (
          if choice.default == null then
            lib.types.nullOr
          else if builtins.isList choice.default then
            lib.types.listOf
          else
            type: type
        )
          (typeOf option.type);
      inherit (choice) default;
      inherit (option) description;
    };

  texts =
    value:
    if value == null || value == false then
      [ ]
    else if builtins.isList value then
      value
    else
      [ (toString value) ];

  # Puts each name's text in the place of the name in braces.
  fill =
    names:
    builtins.replaceStrings (map (name: "{${name}}") (builtins.attrNames names)) (
      builtins.attrValues names
    );

  fillSections =
    names:
    builtins.mapAttrs (
      _:
      builtins.mapAttrs (
        _: value: if builtins.isList value then map (fill names) value else fill names value
      )
    );

  grow = builtins.zipAttrsWith (
    _: values:
    if builtins.isList (builtins.head values) then
      builtins.concatLists values
    else
      builtins.elemAt values (builtins.length values - 1)
  );

  merge = builtins.zipAttrsWith (_: grow);
in
rec {
  inherit (table) shared jobs;

  mkOptions =
    choices:
    builtins.listToAttrs (
      map (choice: {
        inherit (choice) name;
        value = mkOption choice;
      }) choices
    );

  # Assertions that no path among the values of these options is where the sandbox hides it; `prefix` is where the options are.
  areVisible =
    prefix: choices: values:
    builtins.concatMap (
      { name, ... }:
      let
        kind = table.types.${table.options.${name}.type};
        path = values.${name};
        hidden = builtins.filter (
          directory: builtins.match "${directory}/.*" path != null
        ) kind.hidden;
      in
      lib.optional (kind ? hidden && path != null) {
        assertion = hidden == [ ];
        message = "${prefix}.${name} is ${path}, but the sandbox of the units hides ${toString hidden}: choose another directory.";
      }
    ) choices;

  # What there is to be for one job, as sections of units.
  installation =
    job: values:
    let
      own = table.jobs.${job};
      names = builtins.mapAttrs (_: value: if builtins.isList value then "" else toString value) values // {
        inherit job;
      };
      chosen = builtins.concatMap (
        choice:
        map (text: {
          option = table.options.${choice.name};
          names = names // {
            value = text;
            directory = builtins.dirOf text;
          };
        }) (texts values.${choice.name})
      ) (table.shared ++ own.options);
      contributed =
        { option, names }:
        fillSections names (merge [
          (option.directives or { })
          { Service.ExecStart = option.arguments or [ ]; }
        ]);
    in
    merge (
      [
        (fillSections names table.directives)
        (fillSections names own.directives)
      ]
      ++ map contributed chosen
    )
    // {
      helpers = builtins.mapAttrs (_: fillSections names) (own.helpers or { });
      tmpfiles = builtins.concatMap (
        { option, names }: map (fill names) (option.tmpfiles or [ ])
      ) chosen;
    };
}
