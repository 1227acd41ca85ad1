# The part of nixpkgs' lib that the modules use. Wrong types, unknown options and conflicting
# definitions are errors, as in nixpkgs.
let
  inherit (builtins)
    all
    attrNames
    concatLists
    concatStringsSep
    filter
    foldl'
    functionArgs
    hasAttr
    head
    intersectAttrs
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isString
    mapAttrs
    removeAttrs
    toJSON
    ;

  # A type whose definitions must be equal.
  scalar = description: check: {
    inherit description check;
    merge =
      place: values:
      if all (value: value == head values) values then
        head values
      else
        throw "The option `${place}' has conflicting definitions";
  };

  types = rec {
    anything = scalar "anything" (_: true);
    bool = scalar "boolean" isBool;
    package = scalar "package" isAttrs;
    str = scalar "string" isString;
    strMatching =
      pattern:
      scalar "string matching the pattern ${pattern}" (
        value: isString value && builtins.match pattern value != null
      );
    addCheck = type: check: type // { check = value: type.check value && check value; };
    enum =
      values:
      scalar "one of ${concatStringsSep ", " (map toJSON values)}" (value: builtins.elem value values);
    ints.between =
      low: high:
      scalar "integer between ${toString low} and ${toString high} (both inclusive)" (
        value: isInt value && low <= value && value <= high
      );

    nullOr =
      type:
      type
      // {
        description = "null or ${type.description}";
        check = value: value == null || type.check value;
        merge =
          place: values:
          if all (value: value == null) values then
            null
          else
            type.merge place (filter (value: value != null) values);
      };

    listOf = type: {
      description = "list of ${type.description}";
      check = isList;
      merge = place: values: map (checked place type) (concatLists values);
    };

    attrsOf = type: {
      description = "attribute set of ${type.description}";
      check = isAttrs;
      merge =
        place: values:
        mapAttrs (
          name: _:
          merged "${place}.${name}" type (map (value: value.${name}) (filter (hasAttr name) values))
        ) (foldl' (a: b: a // b) { } values);
    };

    submodule = module: {
      description = "submodule";
      check = value: isAttrs value || isFunction value;
      merge =
        place: values:
        (evalModules {
          modules = [ module ] ++ values;
          prefix = "${place}.";
        }).config;
    };
  };

  checked =
    place: type: value:
    if type.check value then
      value
    else
      throw "A definition for option `${place}' is not of type `${type.description}'. Value: ${toJSON value}";

  # Unwrap mkIf and mkOverride into a list of definitions with priorities.
  unwrapped =
    priority: definition:
    if definition._type or null == "if" then
      if definition.condition then unwrapped priority definition.content else [ ]
    else if definition._type or null == "override" then
      unwrapped definition.priority definition.content
    else
      [ { inherit priority definition; } ];

  highestPriority = foldl' (
    lowest: { priority, ... }: if priority < lowest then priority else lowest
  ) 9999;

  merged =
    place: type: definitions:
    let
      found = concatLists (map (unwrapped 100) definitions);
      strongest = highestPriority found;
      winning = filter ({ priority, ... }: priority == strongest) found;
    in
    if winning == [ ] then
      throw "The option `${place}' was accessed but has no value defined."
    else
      type.merge place (map ({ definition, ... }: checked place type definition) winning);

  # Move an mkIf around a set to each of its attributes.
  distributed =
    definition:
    if definition._type or null == "if" then
      mapAttrs (_: content: mkIf definition.condition content) (distributed definition.content)
    else
      definition;

  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };

  mkOption = option: option // { _type = "option"; };

  isOption = value: value._type or null == "option";

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? "",
    }:
    let
      arguments = {
        inherit lib config;
        options = described options (map (module: module.config) all);
      }
      // specialArgs;

      collected =
        module:
        let
          loaded = if isFunction module || isAttrs module then module else import module;
          called = if isFunction loaded then loaded (intersectAttrs (functionArgs loaded) arguments) else loaded;
        in
        concatLists (map collected (called.imports or [ ]))
        ++ [
          {
            file = if isAttrs module || isFunction module then null else toString module;
            options = called.options or { };
            config =
              if called ? config || called ? options then
                called.config or { }
              else
                removeAttrs called [ "imports" ];
          }
        ];

      # A file that is imported twice counts once.
      all = foldl' (
        found: module:
        if module.file != null && builtins.elem module.file (map ({ file, ... }: file) found) then
          found
        else
          found ++ [ module ]
      ) [ ] (concatLists (map collected modules));

      joined =
        declarations:
        mapAttrs (
          name: _:
          let
            found = map (declaration: declaration.${name}) (filter (hasAttr name) declarations);
          in
          if isOption (head found) then head found else joined found
        ) (foldl' (a: b: a // b) { } declarations);

      options = joined (map (module: module.options) all);

      definitionsOf =
        name: definitions:
        map (definition: definition.${name}) (filter (hasAttr name) (map distributed definitions));

      # The options as the modules see them, with the priority of their value.
      described =
        declarations: definitions:
        mapAttrs (
          name: declaration:
          let
            found = definitionsOf name definitions;
            given = concatLists (map (unwrapped 100) found);
          in
          if isOption declaration then
            declaration // { highestPrio = highestPriority (given ++ [ { priority = 1500; } ]); }
          else
            described declaration found
        ) declarations;

      valued =
        place: declarations: definitions:
        let
          given = map distributed definitions;
          unknown = filter (name: !(hasAttr name declarations)) (concatLists (map attrNames given));
          value =
            name: declaration:
            let
              found = definitionsOf name definitions;
              default = {
                _type = "override";
                priority = 1500;
                content = declaration.default;
              };
            in
            if isOption declaration then
              merged "${place}${name}" declaration.type (
                found ++ (if declaration ? default then [ default ] else [ ])
              )
            else
              valued "${place}${name}." declaration found;
        in
        if unknown != [ ] then
          throw "The option `${place}${head unknown}' does not exist."
        else
          mapAttrs value declarations;

      config = valued prefix options (map (module: module.config) all);
    in
    {
      inherit config options;
    };

  lib = {
    inherit
      concatStringsSep
      evalModules
      mkIf
      mkOption
      types
      ;

    # The only definition is also the last one.
    mkAfter = content: content;
    literalExpression = text: text;
    mkEnableOption =
      text:
      mkOption {
        type = types.bool;
        default = false;
        description = "Whether to enable ${text}.";
      };
    concatMap = builtins.concatMap;
    escapeShellArgs =
      arguments:
      concatStringsSep " " (
        map (
          argument:
          if builtins.match "[[:alnum:],._+:@%/-]+" argument == null then
            "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] argument}'"
          else
            argument
        ) arguments
      );
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    removePrefix =
      prefix: text:
      if lib.hasPrefix prefix text then
        builtins.substring (builtins.stringLength prefix) (-1) text
      else
        text;
    removeSuffix =
      suffix: text:
      let
        length = builtins.stringLength text - builtins.stringLength suffix;
      in
      if length >= 0 && builtins.substring length (-1) text == suffix then
        builtins.substring 0 length text
      else
        text;
    optional = condition: value: if condition then [ value ] else [ ];
    optionalAttrs = condition: value: if condition then value else { };
    unique = foldl' (found: value: if builtins.elem value found then found else found ++ [ value ]) [ ];
    optionals = condition: values: if condition then values else [ ];
  };
in
lib
